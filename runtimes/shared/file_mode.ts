import type { Address } from "../../src/address.ts";
import { SocketError } from "../../src/errors.ts";
import { fsPath, inside, splitPath, uniqueName } from "./socket_path.ts";

/** Opens a file for nothing but to name it (open(2)); the same number on x86 and ARM. */
const O_PATH = 0o10000000;
/** The permissions of others to write in a directory, and the bit that keeps them from renaming what isn't theirs. */
const OTHERS_WRITE = 0o022;
const STICKY = 0o1000;

/**
 * Binds with the process's umask set so that the socket's file has `mode` from its first moment; `bind` must have bound the path before it
 * returns. Returns false, without having called it, where the umask can't be set: in worker threads, and on Deno without --allow-sys.
 */
export function withUmask(mode: number, bind: () => void): boolean {
  let umask: number;
  try {
    umask = process.umask(0o777 & ~mode);
  } catch {
    return false;
  }
  try {
    bind();
  } finally {
    process.umask(umask);
  }
  return true;
}

/** Whether a file can be held by a descriptor and changed through that, whatever becomes of its path: on Linux, but for Deno's sandbox. */
export function canHold(): boolean {
  try {
    return process.platform === "linux" && process.getBuiltinModule("node:fs").existsSync("/proc/self/fd");
  } catch {
    return false;
  }
}

/**
 * Sets the permissions of a socket's file, never those of a file that a symbolic link leads to: who may write to the directory may put a
 * link in the socket's place at any moment, and chmod(2) follows it.
 *
 * @param path Where the file is.
 * @param address What to name in an error.
 */
export function setMode(path: string, mode: number, address: Address): void {
  const { chmodSync, lstatSync } = process.getBuiltinModule("node:fs");
  if ((lstatSync(fsPath(path)).mode & 0o777) === mode) return;
  if (canHold()) return setModeOfHeld(path, mode, address);
  const open = openToOthers(splitPath(path).directory);
  if (open === null) return chmodSync(fsPath(path), mode);
  throw refused(
    address,
    `mode 0o${mode.toString(8)} can't be set safely, as others may write to ${open} and could put a link in the file's place; ` +
      "use a directory that belongs to the server, or start Deno with --allow-sys",
  );
}

function setModeOfHeld(path: string, mode: number, address: Address): void {
  const { chmodSync, closeSync, constants, fstatSync, openSync } = process.getBuiltinModule("node:fs");
  const fd = openSync(fsPath(path), O_PATH | constants.O_NOFOLLOW);
  try {
    const held = fstatSync(fd);
    // A socket with a second name could be another server's, linked here.
    if (!held.isSocket() || held.nlink !== 1) throw refused(address, "the file was replaced before it had its mode");
    chmodSync(`/proc/self/fd/${fd}`, mode);
  } finally {
    closeSync(fd);
  }
}

function refused(address: Address, detail: string): SocketError {
  return new SocketError("EACCES", { syscall: "chmod", address }, detail);
}

/**
 * The directory in which others than this user and root can replace what leads to a directory's files, that one or one above it; `null` when
 * there is none. Looks at those above it as far as Deno's permissions let it.
 */
function openToOthers(directory: string): string | null {
  const { lstatSync, realpathSync } = process.getBuiltinModule("node:fs");
  const user = ownUser(directory);
  let at = directory;
  try {
    at = realpathSync(directory);
  } catch {
    // Not to be read: as it was given.
  }
  for (;;) {
    try {
      const { mode, uid } = lstatSync(fsPath(at));
      const writable = (mode & OTHERS_WRITE) !== 0 && (mode & STICKY) === 0;
      if (writable || (uid !== user && uid !== 0)) return at;
    } catch {
      // Above what Deno may read.
      return null;
    }
    const above = splitPath(at).directory;
    if (above === at) return null;
    at = above;
  }
}

/** This process's user, learned from a file that it makes: Deno tells it to nobody without --allow-sys. */
function ownUser(directory: string): number {
  const { closeSync, fstatSync, openSync, unlinkSync } = process.getBuiltinModule("node:fs");
  const path = fsPath(inside(directory, `.${uniqueName()}`));
  const fd = openSync(path, "wx", 0o600);
  try {
    return fstatSync(fd).uid;
  } finally {
    closeSync(fd);
    unlinkSync(path);
  }
}
