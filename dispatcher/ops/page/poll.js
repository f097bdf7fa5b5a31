// What a view asks for beside the stream: at its start, after an order, and every few samples.

export function poll(page, load, everyS = 5) {
  const state = { data: null, problem: null, at: 0 };
  state.again = async () => {
    state.at = Date.now();
    try {
      state.data = await load();
      state.problem = null;
    } catch (error) {
      if (error.status === 401) throw error;
      state.problem = error.message;
    }
    page.redraw();
  };
  state.seen = () => Date.now() - state.at >= everyS * 1000 && state.again();
  state.again();
  return state;
}
