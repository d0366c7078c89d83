/** What a child process runs: it loads the module that it is told to and does what the frames on the link ask for. */
import type * as net from "node:net";
import { encodeError } from "../../src/relay/frames.ts";
import { type Guest, startGuest } from "../../src/relay/start_guest.ts";
import { encodeFrame, FrameDecoder } from "../../src/relay/stream_frames.ts";
import type { WorkerStart } from "../../src/runtime.ts";
import { unmark } from "./child_environment.ts";
import { output } from "./output.ts";
import { HELLO, LINK, REPORT } from "./processes.ts";

unmark();

output.guardOutput();
// A Ctrl-C in the terminal reaches the whole process group. When to stop is the server's to decide, and the link tells it.
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => {});

const { connect, Socket } = process.getBuiltinModule("node:net") as typeof net;
// Bun's Socket doesn't take a descriptor, but its connect() does, which on the others wants an address beside it.
const link = "Bun" in globalThis ? connect({ fd: LINK } as object as net.NetConnectOpts) : new Socket({ fd: LINK });
const send = (channel: number, type: number, payload?: Uint8Array) => void link.write(encodeFrame(channel, type, payload));
send(HELLO, REPORT);
let guest: Guest | null = null;

async function begin(start: WorkerStart): Promise<void> {
  try {
    guest = await startGuest(start, send);
    send(0, REPORT);
  } catch (error) {
    send(0, REPORT, encodeError(error));
  }
}

const decoder = new FrameDecoder((channel, type, payload) => {
  if (guest === null) void begin(JSON.parse(new TextDecoder().decode(payload)));
  else guest.receive(channel, type, payload);
});
link.on("data", (chunk) => decoder.push(chunk as Uint8Array));
link.on("error", () => {});
// The server is gone, or has no use for this process any more.
link.on("close", () => process.exit(0));
