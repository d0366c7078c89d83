import type { UnixAddress } from "./address.ts";
import { bind } from "./bind.ts";
import { print } from "./print.ts";
import { getRuntime, type Runtime } from "./runtime.ts";

/** A descriptor that systemd has passed. */
export interface InheritedDescriptor {
  /** The descriptor; the first is 3. */
  readonly fd: number;
  /** Its name: `FileDescriptorName=` of the socket unit, by default the unit's name; `"unknown"` when systemd has given none. */
  readonly name: string;
}

/** Options of the functions that speak with systemd. */
export interface SystemdOptions {
  /** Whose environment and sockets: the running runtime's by default. */
  runtime?: Runtime;
}

/** What to tell systemd, as sd_notify(3) has it. */
export interface ServiceState {
  /** The service has started, or has loaded its configuration again (READY=1). */
  ready?: boolean;
  /** The service is about to end (STOPPING=1). */
  stopping?: boolean;
  /** The service loads its configuration again (RELOADING=1 with MONOTONIC_USEC=, as `Type=notify-reload` needs); `ready` follows. */
  reloading?: boolean;
  /** The service is alive (WATCHDOG=1); see {@linkcode watchdog}. */
  watchdog?: boolean;
  /** What `systemctl status` shows, one line (STATUS=). */
  status?: string;
  /** The process id of the service, when another process tells (MAINPID=). */
  mainPid?: number;
  /** Milliseconds more that starting or stopping takes (EXTEND_TIMEOUT_USEC=). */
  extendTimeout?: number;
}

/** SD_LISTEN_FDS_START of sd_listen_fds(3). */
const FIRST = 3;

/**
 * The sockets that systemd has passed to this process (socket activation, sd_listen_fds(3)), for the `fd` of a server. The variables
 * LISTEN_FDS, LISTEN_PID and LISTEN_FDNAMES are removed, so that children don't take the sockets for theirs: call it once. Programs that
 * this one runs don't inherit the sockets (FD_CLOEXEC), on Deno with `--allow-ffi` alone.
 *
 * @param options `runtime`: whose environment.
 * @returns The descriptors; none when the program was started in another way. On Deno it needs
 * `--allow-env=LISTEN_FDS,LISTEN_PID,LISTEN_FDNAMES`; without it, none are found.
 *
 * @example Listen on systemd's socket, or on one's own when started by hand
 * ```ts
 * import { listenFds, serve } from "@sockets/server";
 *
 * const [socket] = listenFds();
 * const server = await serve("tcp://127.0.0.1:0", (conn) => conn.write("hello\n"), { fd: socket?.fd });
 * await server.serverClose();
 * ```
 */
export function listenFds(options: SystemdOptions = {}): InheritedDescriptor[] {
  const { runtime = getRuntime() } = options;
  const [pid, count, names] = ["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"].map((name) => {
    const value = runtime.environment(name);
    if (value !== undefined) runtime.unsetEnvironment(name);
    return value;
  });
  if (Number(pid) !== runtime.pid() || !/^\d+$/.test(count ?? "")) return [];
  const all = names === undefined || names === "" ? [] : names.split(":");
  const descriptors = Array.from({ length: Number(count) }, (_, index) => ({ fd: FIRST + index, name: all[index] ?? "unknown" }));
  for (const { fd } of descriptors) runtime.setCloseOnExec?.(fd);
  return descriptors;
}

let warned = false;

/**
 * Tells systemd how the service is (sd_notify(3)), for units of `Type=notify`. A program that was not started by systemd, and has no
 * NOTIFY_SOCKET, does nothing.
 *
 * It needs Unix datagrams: on Node version 26, on Deno `--allow-ffi` and `--allow-env=NOTIFY_SOCKET`. Without them it says so once on
 * stderr where NOTIFY_SOCKET is set, and the unit must not be of `Type=notify`.
 *
 * @param state What to tell.
 * @param options `runtime`: whose environment and sockets.
 * @returns Whether systemd was told. Never rejects: a service doesn't fail because nobody hears how it is.
 * @throws {TypeError} As the promise's rejection, when `status` has more than one line.
 *
 * @example
 * ```ts
 * import { notify } from "@sockets/server";
 *
 * await notify({ ready: true, status: "serving" });
 * ```
 */
export async function notify(state: ServiceState, options: SystemdOptions = {}): Promise<boolean> {
  const message = toMessage(state);
  const { runtime = getRuntime() } = options;
  const path = runtime.environment("NOTIFY_SOCKET");
  if (path === undefined || !/^[/@]/.test(path)) return false;
  try {
    const clock = state.reloading ? `\nMONOTONIC_USEC=${await runtime.monotonicMicroseconds()}` : "";
    const to: UnixAddress = { transport: "unixgram", path: path.replace(/^@/, "\0") };
    const socket = await bind("unixgram:", { runtime });
    try {
      await socket.send(message + clock, to);
    } finally {
      await socket.close();
    }
    return true;
  } catch (error) {
    if (!warned) print(`systemd can't be told: ${error instanceof Error ? error.message : error}`);
    warned = true;
    return false;
  }
}

/**
 * Tells systemd that the service is alive, twice as often as `WatchdogSec=` of the unit asks for, as sd_watchdog_enabled(3) recommends.
 * A program whose event loop hangs no longer does, and systemd starts it anew. Does nothing when the unit doesn't ask for it.
 *
 * @param options `runtime`: whose environment and sockets.
 * @returns Disposing of it ends the messages. They keep no program running.
 *
 * @example
 * ```ts
 * import { notify, watchdog } from "@sockets/server";
 *
 * await notify({ ready: true });
 * const alive = watchdog();
 * alive[Symbol.dispose]();
 * ```
 */
export function watchdog(options: SystemdOptions = {}): Disposable {
  const { runtime = getRuntime() } = options;
  const pid = runtime.environment("WATCHDOG_PID");
  const microseconds = Number(runtime.environment("WATCHDOG_USEC") ?? 0);
  let timer: ReturnType<typeof setInterval> | undefined;
  if (microseconds > 0 && (pid === undefined || Number(pid) === runtime.pid())) {
    let telling = false;
    timer = setInterval(async () => {
      // On a machine that is too busy they must not pile up.
      if (telling) return;
      telling = true;
      await notify({ watchdog: true }, options);
      telling = false;
    }, microseconds / 2000);
    // Every runtime's timers have it, browsers' have not.
    (timer as unknown as { unref?(): void }).unref?.();
  }
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

function toMessage(state: ServiceState): string {
  const { ready, stopping, reloading, watchdog, status, mainPid, extendTimeout } = state;
  if (status?.includes("\n")) throw new TypeError(`status must be one line, got ${JSON.stringify(status)}`);
  const lines = [];
  if (reloading) lines.push("RELOADING=1");
  if (ready) lines.push("READY=1");
  if (stopping) lines.push("STOPPING=1");
  if (watchdog) lines.push("WATCHDOG=1");
  if (status !== undefined) lines.push(`STATUS=${status}`);
  if (mainPid !== undefined) lines.push(`MAINPID=${mainPid}`);
  if (extendTimeout !== undefined) lines.push(`EXTEND_TIMEOUT_USEC=${Math.round(extendTimeout * 1000)}`);
  return lines.join("\n");
}
