/** The thread that sleeps in poll(2) until a Unix datagram socket has something to receive, and wakes the main thread. */
import { load, STATE } from "./unix_datagram.ts";

const POLLIN = 1;

addEventListener("message", (event) => {
  const { fd, state } = (event as MessageEvent<{ fd: number; state: Int32Array }>).data;
  const { libc } = load();
  // struct pollfd: the descriptor, and two 16-bit masks, wanted and found.
  const pollfd = new Int32Array(2);
  const events = new Int16Array(pollfd.buffer);
  for (;;) {
    Atomics.wait(state, STATE.ARMED, 0);
    Atomics.store(state, STATE.ARMED, 0);
    if (Atomics.load(state, STATE.CLOSING) === 1) break;
    pollfd[0] = fd;
    events[2] = POLLIN;
    events[3] = 0;
    libc.poll(pollfd, 1, -1);
    if (Atomics.load(state, STATE.CLOSING) === 1) break;
    Atomics.store(state, STATE.READY, 1);
    Atomics.notify(state, STATE.READY);
  }
  (self as unknown as { postMessage(message: unknown): void }).postMessage("closed");
});
