import type * as childProcess from "node:child_process";
import type * as net from "node:net";
import type { ChildProcess, ProcessOptions } from "../../src/runtime.ts";
import { decodeError } from "../../src/relay/frames.ts";
import { print } from "../../src/print.ts";
import { encodeFrame, FrameDecoder } from "../../src/relay/stream_frames.ts";
import { bootstrap } from "./bootstrap.ts";
import { guard } from "./guardian.ts";

/** What a child says first: that it is ready, or why it isn't. */
export const REPORT = 0;
/** What a child is told first. */
export const START = 0;
/** The descriptor of the child's end of the link. */
export const LINK = 3;

/** What makes a runtime's own program run something. */
export interface Command {
  /** Its arguments. */
  readonly args: readonly string[];
  /** What it reads from standard input; nothing by default. */
  readonly input?: string;
  /** The directory that it starts in; that of this process by default. */
  readonly cwd?: string;
}

/** The command that runs a module, given as text, in a child that is started with `start`. */
export type CommandFor = (module: string, start: ProcessOptions["start"]) => Command;

/** What a child process calls first. The literal `import()` makes the module part of the package for whoever looks for its modules. */
export function startProcess(): Promise<unknown> {
  return import("./process.ts");
}

/**
 * Starts a child process by way of `node:child_process`, which is the same on all runtimes but for the command. Its frames go through
 * a pair of sockets, of which it inherits one: it ends when either side is gone, however that happened.
 */
export function spawnProcess({ start, onFrame }: ProcessOptions, commandFor: CommandFor): ChildProcess {
  const { spawn } = process.getBuiltinModule("node:child_process") as typeof childProcess;
  const startFrame = encodeFrame(0, START, new TextEncoder().encode(JSON.stringify(start)));
  const { args, input, cwd } = commandFor(bootstrap(import.meta.url, "startProcess"), start);
  const child = spawn(process.execPath, args, {
    cwd,
    stdio: [input === undefined ? "ignore" : "pipe", "inherit", "pipe", "pipe"],
  });
  const ready = Promise.withResolvers<void>();
  const exited = Promise.withResolvers<Error>();
  ready.promise.catch(() => {});
  const unguard = child.pid === undefined ? () => {} : guard(child.pid);
  // None when it could not be started.
  const link = child.stdio[LINK] as net.Socket | null | undefined;
  const decoder = new FrameDecoder((channel, type, payload) => {
    if (type !== REPORT) return onFrame(channel, type, payload);
    if (payload.length === 0) return ready.resolve();
    ready.reject(decodeError(payload));
  });
  // That the child is gone is told by its exit.
  link?.on("data", (chunk) => decoder.push(chunk as Uint8Array)).on("error", () => {});
  link?.write(startFrame);
  child.stdin?.on("error", () => {}).end(input);
  // Marked, so that a reader of the log knows whose lines these are.
  let line = "";
  const show = (text: string) => print(`[${child.pid}] ${text}`);
  child.stderr?.setEncoding("utf8").on("data", (text: string) => {
    const lines = (line + text).split("\n");
    line = lines.pop()!;
    lines.forEach(show);
  });
  const over = (error: Error) => {
    ready.reject(error);
    exited.resolve(error);
    link?.destroy();
  };
  child.on("error", over);
  child.on("exit", (code, signal) => {
    unguard();
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
