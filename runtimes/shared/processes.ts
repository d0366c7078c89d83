import type * as childProcess from "node:child_process";
import type * as net from "node:net";
import { SocketError } from "../../src/errors.ts";
import type { ChildProcess, ProcessOptions } from "../../src/runtime.ts";
import { decodeError } from "../../src/relay/frames.ts";
import { print } from "../../src/print.ts";
import { encodeFrame, FrameDecoder } from "../../src/relay/stream_frames.ts";
import { bootstrap } from "./bootstrap.ts";
import { childEnvironment, endIfStray } from "./child_environment.ts";
import { freeDescriptors, noDescriptors } from "./descriptors.ts";
import { LineForwarder } from "./forward_lines.ts";
import { guard } from "./guardian.ts";

/** What a child says first: that it runs what it was started for. */
export const HELLO = 1;
/** What a child says next: that it is ready, or why it isn't. */
export const REPORT = 0;
/** What a child is told first. */
export const START = 0;
/** The descriptor of the child's end of the link. */
export const LINK = 3;

/**
 * Descriptors that must be free before a process is started. Starting one takes up to 9 at once, and Node and Deno leak some of those that
 * they have got when the others can't be had.
 */
const SPAWN_DESCRIPTORS = 16;
/** Milliseconds after which a child that has not said hello is taken for another program than the one that was meant, and is ended. */
const HELLO_TIMEOUT_MS = 60_000;

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
 *
 * @param options What the child is to run.
 * @param commandFor The command that runs it.
 * @param helloTimeoutMs Milliseconds that the child has to begin with the module that it is given.
 * @throws {SocketError} When the system has no descriptors, processes or memory left; nothing is left of the attempt then.
 */
export function spawnProcess(
  { start, onFrame }: ProcessOptions,
  commandFor: CommandFor,
  helloTimeoutMs: number = HELLO_TIMEOUT_MS,
): ChildProcess {
  endIfStray();
  if (freeDescriptors(SPAWN_DESCRIPTORS, start.module) < SPAWN_DESCRIPTORS) throw noDescriptors("spawn");
  const startFrame = encodeFrame(0, START, new TextEncoder().encode(JSON.stringify(start)));
  const { args, input, cwd } = commandFor(bootstrap(import.meta.url, "startProcess"), start);
  const ready = Promise.withResolvers<void>();
  const exited = Promise.withResolvers<Error>();
  ready.promise.catch(() => {});
  const child = spawn(args, cwd, input !== undefined);
  // It comes after all that follows here. A failure before there is a process leaves no stdio at all.
  child.on("error", (error) => over(spawnError(error)));
  const unguard = child.pid === undefined ? () => {} : guard(child.pid);
  const link = (child.stdio as readonly unknown[] | undefined)?.[LINK] as net.Socket | null | undefined;
  const hello = setTimeout(() => {
    const seconds = helloTimeoutMs / 1000;
    ready.reject(new Error(`process ${child.pid} has not begun what it was started for within ${seconds} s, and was ended`));
    child.kill("SIGKILL");
  }, helloTimeoutMs);
  (hello as unknown as { unref?(): void }).unref?.();
  const decoder = new FrameDecoder((channel, type, payload) => {
    if (type !== REPORT) return onFrame(channel, type, payload);
    if (channel === HELLO) return clearTimeout(hello);
    if (payload.length === 0) return ready.resolve();
    ready.reject(decodeError(payload));
  });
  // That the child is gone is told by its exit.
  link?.on("data", (chunk) => decoder.push(chunk as Uint8Array)).on("error", () => {});
  link?.write(startFrame);
  child.stdin?.on("error", () => {}).end(input);
  // The mark tells a reader of the log whose lines these are.
  const lines = new LineForwarder(`[${child.pid}] `, print);
  child.stderr?.on("data", (chunk: Uint8Array) => lines.push(chunk)).on("error", () => {});
  const over = (error: Error) => {
    clearTimeout(hello);
    ready.reject(error);
    exited.resolve(error);
    link?.destroy();
  };
  child.on("exit", (code, signal) => {
    unguard();
    lines.end();
    over(new Error(`process ${child.pid} ended with ${signal === null ? `exit status ${code}` : signal}`));
  });
  return {
    pid: child.pid ?? -1,
    ready: ready.promise,
    exited: exited.promise,
    send(channel, type, payload) {
      link?.write(encodeFrame(channel, type, payload));
    },
    keepAlive(on) {
      // What Deno gives for a pipe has neither method before it is connected.
      for (const part of [child, link, child.stderr] as (Partial<net.Socket> | null | undefined)[]) {
        if (on) part?.ref?.();
        else part?.unref?.();
      }
    },
    terminate() {
      child.kill("SIGKILL");
    },
  };
}

function spawn(args: readonly string[], cwd: string | undefined, reads: boolean): childProcess.ChildProcess {
  const { spawn } = process.getBuiltinModule("node:child_process") as typeof childProcess;
  try {
    return spawn(process.execPath, args, {
      cwd,
      env: childEnvironment(),
      stdio: [reads ? "pipe" : "ignore", "inherit", "pipe", "pipe"],
    });
  } catch (cause) {
    throw spawnError(cause);
  }
}

/** A system's error as a {@linkcode SocketError}; any other one as it is. */
function spawnError(cause: unknown): Error {
  const { code, message } = cause as Error & { code?: unknown };
  if (typeof code !== "string" || !/^E[A-Z0-9]+$/.test(code)) return cause as Error;
  // For a socket this code means something else.
  if (code === "EAGAIN") return new SocketError(code, { syscall: "spawn", cause }, "as many processes run as may (ulimit -u)");
  return new SocketError(code, { syscall: "spawn", cause }, code === "EMFILE" || code === "ENFILE" ? undefined : message);
}
