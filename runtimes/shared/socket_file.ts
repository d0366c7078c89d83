import type { UnixAddress } from "../../src/address.ts";
import { SocketError } from "../../src/errors.ts";
import { encodePath } from "../../src/path_bytes.ts";
import type { SocketOptions } from "../../src/runtime.ts";
import { canHold, setMode, withUmask } from "./file_mode.ts";
import { attempt, codeOf, fsPath, inside, splitPath, uniqueName } from "./socket_path.ts";
import { makeRoom, type Obstacle, type Probe } from "./stale_file.ts";
import { systemCapabilities } from "./system_capabilities.ts";

/**
 * The address to bind for one that leaves its name to the system: an abstract name on Linux (as autobind makes them, unix(7)), else
 * a file of the system's temporary directory.
 */
export function ephemeral(address: UnixAddress): UnixAddress {
  if (address.path !== "") return address;
  const name = `sockets-${crypto.randomUUID()}`;
  return {
    ...address,
    path: process.platform === "linux" ? `\0${name}` : `${process.getBuiltinModule("node:os").tmpdir()}/${name}`,
  };
}

/** How an adapter binds the path of a Unix socket. */
export interface PathBinder<T> {
  /** What to call the step in errors. */
  readonly syscall: string;
  /** Finds out whether an existing file is stale. */
  readonly probe: Probe;
  /** Binds; has done so before it returns, though it may tell only later whether that worked. */
  bind(path: string): T | Promise<T>;
  /** Closes what was bound. */
  unbind(bound: T): void;
  /**
   * Whether the runtime removes the path by itself when the socket is closed, whatever is there by then. Such a socket is bound to a path of
   * its own, which nobody else uses, and gets the one that clients know as a hard link, unless `mayBind` refuses that path.
   */
  readonly unlinks: boolean;
  /** Whether the runtime's permissions allow to bind a path; all if it is missing. */
  mayBind?(path: string): boolean;
  /** Takes permissions away from the file that is going to be bound, before it is there. */
  restrict?(mode: number): void;
}

/** What `bindPath` has bound; an abstract name has no file. */
export interface BoundPath<T> {
  readonly bound: T;
  readonly file: SocketFile | null;
}

/**
 * Binds the path of a Unix socket: replaces a stale file if that is wanted, and gives the new one its permissions, before anybody can open
 * it where the runtime allows. Whatever else is in the way stays there and is `EADDRINUSE`.
 */
export async function bindPath<T>(options: SocketOptions, binder: PathBinder<T>): Promise<BoundPath<T>> {
  const address = options.address as UnixAddress;
  const { path } = address;
  const { syscall, probe } = binder;
  // The named pipes of Windows are no files either.
  if (path.startsWith("\0") || process.platform === "win32") return { bound: await binder.bind(path), file: null };
  const obstacle: Obstacle = { address, syscall, probe, replace: options.allowReuseAddress, isOpenHere };
  try {
    // Before anything is bound: mostly somebody has the path, or nobody.
    await makeRoom(obstacle);
    const room = binder.unlinks ? privateRoom(path) : null;
    if (room === null || binder.mayBind?.(room.path) === false || !makeDirectory(room.directory)) {
      return await bindDirectly(obstacle, options.mode, binder);
    }
    return await bindInside(room, obstacle, options.mode, binder);
  } catch (cause) {
    const code = codeOf(cause);
    // Of the steps around it: a directory that may not be searched, say. An error of the runtime's own is for its adapter to explain.
    if (cause instanceof SocketError || code === undefined || !/^E[A-Z0-9]+$/.test(code)) throw cause;
    throw new SocketError(code, { syscall, address, cause });
  }
}

async function bindDirectly<T>(obstacle: Obstacle, mode: number, binder: PathBinder<T>): Promise<BoundPath<T>> {
  const { address, syscall } = obstacle;
  const { path } = address;
  const { existsSync } = process.getBuiltinModule("node:fs");
  // libuv calls it EACCES, as Windows does.
  if (!existsSync(fsPath(splitPath(path).directory))) throw new SocketError("ENOENT", { syscall, address });
  for (;;) {
    let bound: T;
    let binding: T | Promise<T>;
    const bind = () => binding = binder.bind(path);
    try {
      binder.restrict?.(mode);
      if (!withUmask(mode, bind)) bind();
      bound = await binding!;
    } catch (cause) {
      if (codeOf(cause) !== "EADDRINUSE") throw cause;
      // Somebody was faster.
      await makeRoom(obstacle);
      continue;
    }
    try {
      setMode(path, mode, address);
      return { bound, file: new SocketFile(path, path, binder.unlinks) };
    } catch (cause) {
      binder.unbind(bound);
      if (!binder.unlinks) attempt(() => process.getBuiltinModule("node:fs").unlinkSync(fsPath(path)));
      throw cause;
    }
  }
}

/** A directory that nobody else can search, and the path to bind in it. */
interface PrivateRoom {
  readonly directory: string;
  readonly path: string;
}

/** Where to bind a socket first, beside its path; `null` when there is no path short enough. */
function privateRoom(path: string): PrivateRoom | null {
  const { directory, name } = splitPath(path);
  const id = uniqueName();
  const room = inside(directory, `.${id}`);
  // With the name if there is room for it: ss(8) and lsof(8) show this path. Never the name alone, which the runtime removes there when it
  // closes: then the room is gone, and a link in its place might lead to a directory that has a file of that name.
  for (const own of [`${name}.${id}`, id]) {
    const inner = inside(room, own);
    if (encodePath(inner).length <= systemCapabilities().socketPathLength) return { directory: room, path: inner };
  }
  return null;
}

/** False where it can't be made; mostly the socket can't either, and the error of that says more. */
function makeDirectory(path: string): boolean {
  try {
    process.getBuiltinModule("node:fs").mkdirSync(fsPath(path), 0o700);
    return true;
  } catch {
    return false;
  }
}

async function bindInside<T>(room: PrivateRoom, obstacle: Obstacle, mode: number, binder: PathBinder<T>): Promise<BoundPath<T>> {
  const { rmdirSync, unlinkSync } = process.getBuiltinModule("node:fs");
  const { path } = obstacle.address;
  let bound: { value: T } | null = null;
  try {
    let binding: T | Promise<T>;
    const bind = () => binding = binder.bind(room.path);
    // The umask is the whole process's, and other threads make files too; in here the file has time to get its mode.
    if (canHold() || !withUmask(mode, bind)) bind();
    bound = { value: await binding! };
    setMode(room.path, mode, obstacle.address);
    const file = new SocketFile(path, room.path, false);
    while (!link(room.path, path)) await makeRoom(obstacle);
    file.keep();
    return { bound: bound.value, file };
  } catch (cause) {
    if (bound !== null) binder.unbind(bound.value);
    throw cause;
  } finally {
    attempt(() => unlinkSync(fsPath(room.path)));
    attempt(() => rmdirSync(fsPath(room.directory)));
  }
}

/** Gives a file a second path; false when there is a file already. */
function link(from: string, to: string): boolean {
  const { linkSync, lstatSync, renameSync } = process.getBuiltinModule("node:fs");
  try {
    linkSync(fsPath(from), fsPath(to));
    return true;
  } catch (cause) {
    const code = codeOf(cause);
    if (code === "EEXIST") return false;
    if (!["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK"].includes(code ?? "")) throw cause;
  }
  // A file system without hard links. A rename would replace what another has put there since.
  if (lstatSync(fsPath(to), { throwIfNoEntry: false }) !== undefined) return false;
  renameSync(fsPath(from), fsPath(to));
  return true;
}

/** The files of the sockets that are open in this thread. */
const openFiles = new Set<SocketFile>();
let watchesExit = false;

/** Whether a path leads to the file of a socket that is open in this thread. */
function isOpenHere(path: string): boolean {
  for (const file of openFiles) if (file.isAt(path)) return true;
  return false;
}

/** The file of a socket that has been bound. */
export class SocketFile {
  #path: string;
  #device: bigint;
  #inode: bigint;
  #runtimeUnlinks: boolean;

  /**
   * @param path The path that clients know.
   * @param madeAt Where the file is now.
   * @param runtimeUnlinks Whether the runtime removes that path by itself when it closes the socket.
   */
  constructor(path: string, madeAt: string, runtimeUnlinks: boolean) {
    const stat = process.getBuiltinModule("node:fs").lstatSync(fsPath(madeAt), { bigint: true });
    this.#path = absolute(path);
    this.#device = stat.dev;
    this.#inode = stat.ino;
    this.#runtimeUnlinks = runtimeUnlinks;
    if (path === madeAt) this.keep();
  }

  /** From now on the file is at its path, and is removed when the program ends. */
  keep(): void {
    openFiles.add(this);
    if (watchesExit) return;
    watchesExit = true;
    process.on("exit", () => {
      for (const file of openFiles) file.remove();
    });
  }

  /**
   * Whether a path leads to this file. The inode's number is enough as long as the socket is open, which holds the inode: the number isn't
   * given to another file before it is closed.
   */
  isAt(path: string): boolean {
    try {
      const stat = process.getBuiltinModule("node:fs").lstatSync(fsPath(path), { bigint: true, throwIfNoEntry: false });
      return stat?.ino === this.#inode && stat.dev === this.#device;
    } catch {
      // In a directory that can't be searched any more.
      return false;
    }
  }

  /** Removes it, unless another has taken its place; while the socket is open, so that nobody takes the file for a stale one. */
  remove(): void {
    if (!openFiles.delete(this)) return;
    attempt(() => {
      if (this.isAt(this.#path)) process.getBuiltinModule("node:fs").unlinkSync(fsPath(this.#path));
    });
  }

  /** Removes the file and closes the socket by way of the runtime, which must not remove what has taken the file's place. */
  close(closeSocket: () => void | Promise<void>): void | Promise<void> {
    if (!this.#runtimeUnlinks) {
      this.remove();
      return closeSocket();
    }
    // Closed before: what is at the path is another's.
    if (!openFiles.delete(this)) return closeSocket();
    const putBack = this.isAt(this.#path) ? () => {} : moveAside(this.#path);
    const closing = closeSocket();
    if (closing === undefined) return putBack();
    return closing.finally(putBack);
  }
}

/** A path that stays the same when the program changes its directory. */
function absolute(path: string): string {
  if (path.startsWith("/")) return path;
  try {
    return inside(process.cwd(), path);
  } catch {
    // Deno may not be allowed to tell the directory.
    return path;
  }
}

/** Moves a file away, if there is one; the result moves it back, unless another is there by then. */
function moveAside(path: string): () => void {
  const { renameSync } = process.getBuiltinModule("node:fs");
  const aside = inside(splitPath(path).directory, `.${uniqueName()}`);
  try {
    renameSync(fsPath(path), fsPath(aside));
  } catch {
    // None there, or the system protects it, from the runtime too.
    return () => {};
  }
  return () =>
    attempt(() => {
      if (link(aside, path)) attempt(() => process.getBuiltinModule("node:fs").unlinkSync(fsPath(aside)));
    });
}
