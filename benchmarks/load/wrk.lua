-- Load of benchmarks/load/wrk.py: POST one JSON body over and over, then print the figures as one line of JSON.
-- wrk runs this file once per thread and once more for setup() and done(). Script arguments: the body's file and the
-- mean think time in milliseconds (0: each connection sends its next request as soon as the last one is answered).

local threads = {}

-- wrk counts only 400 and above as failures. A redirect is no answer to a POST either.
bad = 0

function setup(thread)
   thread:set("seed", #threads + 1)
   table.insert(threads, thread)
end

function init(args)
   local file = assert(io.open(args[1], "rb"))
   wrk.method = "POST"
   wrk.body = file:read("*a")
   file:close()
   wrk.headers["Content-Type"] = wrk.headers["Content-Type"] or "application/json"

   local mean_ms = tonumber(args[2])
   if mean_ms > 0 then
      math.randomseed(seed) -- the same load in every run, but another one in each thread
      -- Defined only here, because wrk sends every request by way of its timer once a delay() exists.
      -- Exponential, so that requests come as from independent users and not in step. wrk's clock ticks in whole
      -- milliseconds and cuts the fraction off, so round here to keep the mean.
      function delay()
         return math.floor(-mean_ms * math.log(1 - math.random()) + 0.5)
      end
   end
end

function response(status)
   if status < 200 or status > 299 then
      bad = bad + 1
   end
end

function done(summary, latency)
   local errors = summary.errors
   local failed = errors.connect + errors.read + errors.write + errors.timeout
   for _, thread in ipairs(threads) do
      failed = failed + thread:get("bad")
   end
   local function ms(percentile)
      return summary.requests > 0 and latency:percentile(percentile) / 1000 or 0
   end
   io.write(string.format(
      '{"requests": %d, "errors": %d, "duration_s": %.6f, "p50_ms": %.3f, "p90_ms": %.3f, "p99_ms": %.3f, '
         .. '"p999_ms": %.3f, "max_ms": %.3f}\n',
      summary.requests, failed, summary.duration / 1e6, ms(50), ms(90), ms(99), ms(99.9),
      summary.requests > 0 and latency.max / 1000 or 0))
end
