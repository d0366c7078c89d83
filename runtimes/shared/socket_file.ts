import type { Address, UnixAddress } from "../../src/address.ts";
import { SocketError } from "../../src/errors.ts";
import type { SocketOptions } from "../../src/runtime.ts";
import { toSocketError } from "./translate.ts";

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

/** Finds out whether somebody has a socket file open; resolves with the code that connecting fails with, or `null`. */
export type Probe = (path: string) => Promise<string | null>;

/**
 * Binds the path of a Unix socket: replaces a stale file if that is wanted, and gives the new one its permissions before anybody can
 * open it. Whatever else is in the way stays there and is `EADDRINUSE`.
 *
 * @param options What to bind.
 * @param probe Finds out whether an existing file is stale.
 * @param syscall What to call the step in errors.
 * @param bind Binds the path; must do so before it returns.
 */
export async function bindPath<T>(options: SocketOptions, probe: Probe, syscall: string, bind: (path: string) => T): Promise<T> {
  const { address } = options;
  const { path } = address as UnixAddress;
  if (path.startsWith("\0")) return bind(path);
  try {
    return await bindFile(options, path, probe, syscall, bind);
  } catch (cause) {
    // Of the steps around it: a directory that may not be searched, say.
    throw toSocketError(cause, syscall, address);
  }
}

async function bindFile<T>(
  options: SocketOptions,
  path: string,
  probe: Probe,
  syscall: string,
  bind: (path: string) => T,
): Promise<T> {
  const { chmodSync, existsSync } = process.getBuiltinModule("node:fs");
  // libuv calls it EACCES, as Windows does.
  if (!existsSync(process.getBuiltinModule("node:path").dirname(path))) {
    throw new SocketError("ENOENT", { syscall, address: options.address });
  }
  await makeRoom(options, path, probe, syscall);
  let umask: number | null = null;
  try {
    // The process's own, but nothing else of this program runs before it is set back.
    umask = process.umask(0o777 & ~options.mode);
  } catch {
    // A worker thread may not set it, nor may Deno without --allow-sys: the file has the process's own for a moment.
  }
  try {
    const bound = bind(path);
    if (umask === null) chmodSync(path, options.mode);
    return bound;
  } finally {
    if (umask !== null) process.umask(umask);
  }
}

/** The file of a socket that has been bound, for those that remove it themselves. */
export class SocketFile {
  #path: string;
  #inode: number | null;

  /** @param address The address that has been bound. */
  constructor(address: Address) {
    this.#path = (address as UnixAddress).path;
    this.#inode = this.#path.startsWith("\0") ? null : socketInode(this.#path);
  }

  /** Removes it, unless another has taken its place. */
  remove(): void {
    if (this.#inode === null || socketInode(this.#path) !== this.#inode) return;
    this.#inode = null;
    try {
      process.getBuiltinModule("node:fs").unlinkSync(this.#path);
    } catch {
      // Gone, or the directory is not ours to change any more: nothing that could be done about it.
    }
  }
}

/** A probe by way of `node:net`, which all runtimes have. */
export function probeStream(path: string): Promise<string | null> {
  return new Promise((resolve) => {
    const socket = process.getBuiltinModule("node:net").connect({ path });
    socket.on("connect", () => {
      socket.destroy();
      resolve(null);
    });
    socket.on("error", (error: Error & { code?: string }) => resolve(error.code ?? "EIO"));
  });
}

async function makeRoom(options: SocketOptions, path: string, probe: Probe, syscall: string): Promise<void> {
  const inode = socketInode(path);
  if (inode === null || !options.allowReuseAddress) return;
  // connect(2): ECONNREFUSED when nobody has the file open. Anything else, as EPROTOTYPE from a socket of another type, is a sign of life.
  if (await probe(path) !== "ECONNREFUSED") throw new SocketError("EADDRINUSE", { syscall, address: options.address });
  // Another server may have replaced it meanwhile.
  if (socketInode(path) === inode) process.getBuiltinModule("node:fs").unlinkSync(path);
}

/** The inode of a socket's file; `null` when there is none, or a file of another kind. */
function socketInode(path: string): number | null {
  const stat = process.getBuiltinModule("node:fs").lstatSync(path, { throwIfNoEntry: false });
  return stat?.isSocket() ? stat.ino : null;
}
