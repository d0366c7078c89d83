import type * as childProcess from "node:child_process";
import type * as net from "node:net";
import type { ChildProcess, ProcessOptions } from "../../src/runtime.ts";
import { encodeFrame, FrameDecoder } from "../../src/relay/stream_frames.ts";

/** What a child says first: that it is ready, or why it isn't. */
export const REPORT = 0;
/** What a child is told first. */
export const START = 0;

/** The report of a child that could not load its handler. */
export interface ProcessFailure {
  name: string;
  message: string;
  stack: string | undefined;
}

/**
 * Starts a child process by way of `node:child_process`, which is the same on all runtimes. Its frames go through a Unix socket of
 * which nobody else knows: it ends when either side is gone, however that happened.
 */
export function spawnProcess({ start, onFrame }: ProcessOptions): ChildProcess {
  const { fork } = process.getBuiltinModule("node:child_process") as typeof childProcess;
  const { createServer } = process.getBuiltinModule("node:net") as typeof net;
  const { mkdtempSync, rmSync } = process.getBuiltinModule("node:fs");
  const startFrame = encodeFrame(0, START, new TextEncoder().encode(JSON.stringify(start)));
  const directory = mkdtempSync(`${process.getBuiltinModule("node:os").tmpdir()}/sockets-`);
  const path = `${directory}/link`;
  const ready = Promise.withResolvers<void>();
  const exited = Promise.withResolvers<Error>();
  ready.promise.catch(() => {});
  let link: net.Socket | null = null;
  const listener = createServer((socket) => {
    // One comes, and then nobody can.
    listener.close();
    rmSync(directory, { recursive: true, force: true });
    link = socket;
    const decoder = new FrameDecoder((channel, type, payload) => {
      if (type !== REPORT) return onFrame(channel, type, payload);
      if (payload.length === 0) return ready.resolve();
      const { name, message, stack } = JSON.parse(new TextDecoder().decode(payload)) as ProcessFailure;
      ready.reject(Object.defineProperties(new Error(message), { name: { value: name }, stack: { value: stack } }));
    });
    socket.on("data", (chunk) => decoder.push(chunk as Uint8Array));
    // The child's end is told by its exit.
    socket.on("error", () => {});
    socket.write(startFrame);
  });
  const child = fork(process.getBuiltinModule("node:url").fileURLToPath(new URL("./process.ts", import.meta.url)), [path], {
    stdio: ["ignore", "inherit", "pipe", "ipc"],
  });
  // Marked, so that a reader of the log knows whose lines these are.
  let line = "";
  const show = (text: string) => process.stderr.write(`[${child.pid}] ${text}\n`);
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    const lines = (line + text).split("\n");
    line = lines.pop()!;
    lines.forEach(show);
  });
  const over = (error: Error) => {
    ready.reject(error);
    exited.resolve(error);
    listener.close();
    link?.destroy();
    rmSync(directory, { recursive: true, force: true });
  };
  child.on("error", over);
  listener.on("error", (error) => {
    over(error);
    child.kill("SIGKILL");
  });
  listener.listen(path);
  child.on("exit", (code, signal) => {
    if (line !== "") show(line);
    over(new Error(`process ${child.pid} ended with ${signal === null ? `exit status ${code}` : signal}`));
  });
  return {
    pid: child.pid ?? -1,
    ready: ready.promise,
    exited: exited.promise,
    send(channel, type, payload) {
      link?.write(encodeFrame(channel, type, payload));
    },
    terminate() {
      child.kill("SIGKILL");
    },
  };
}
