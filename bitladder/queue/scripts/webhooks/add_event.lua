-- Note that something other than a job has ended.
--
-- Needs: clock, webhooks
--
-- KEYS  1  bl:webhooks:events          list    events, the oldest first
-- ARGV  1 the event's type  2 the id of what it is about  3 its hook
-- Touches also, by name: what its parts touch.
-- Returns nothing.

add_event(ARGV[1], ARGV[2], ARGV[3], now_ms())
