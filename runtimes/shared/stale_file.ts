import type { UnixAddress } from "../../src/address.ts";
import { SocketError } from "../../src/errors.ts";
import { attempt, codeOf, fsPath, inside, splitPath, uniqueName } from "./socket_path.ts";

/** Finds out whether somebody has a socket file open; resolves with the code that connecting fails with, or `null`. */
export type Probe = (path: string) => Promise<string | null>;

/** How often a server that waits for another's lock looks again. */
const LOCK_POLL_MS = 10;
/** After so long the holder of a lock is taken for dead. Being wrong costs it its turn and no more: see `takeAway`. */
const LOCK_TIMEOUT_MS = 1000;
/** After so long without the lock a server gives up: something is there that it can't remove. */
const LOCK_PATIENCE_MS = 10_000;

/**
 * A file younger than this is not taken for stale yet: between bind(2) and listen(2) a stream socket refuses those who connect, as a dead one
 * does.
 */
const MIN_AGE_MS = 100;

/** How often a file is looked at that appears and vanishes. */
const MAX_LOOKS = 100;

/** What stands between a server and its path. */
export interface Obstacle {
  readonly address: UnixAddress;
  readonly syscall: string;
  /** Whether a stale file may be removed. */
  readonly replace: boolean;
  readonly probe: Probe;
  /** Whether a file is that of a server in this process, which needn't be probed. */
  isOpenHere(path: string): boolean;
}

/**
 * Returns when nothing is in the way at the path, having removed a stale file if need be. Whatever else is there stays, and is EADDRINUSE.
 *
 * Of several servers that find a stale file at once, exactly one gets the path. A lock in the directory, `.NAME.lock`, is a directory that
 * holds one of its holder's own name, which is never used again; it is made elsewhere and renamed into place, which the system refuses while
 * another's is in there. The holder makes sure that the file is stale, and then renames it into its own directory inside of the lock. That
 * fails when the lock has been broken meanwhile, since the directory is gone then. So when it succeeds, nobody else has removed anything
 * since the file was found stale; a path that is taken can't be bound; and a socket that is dead stays dead: what was renamed is the stale
 * file, never a live one. Then the path is free, and only one of those that bind it, or link their file to it, can succeed.
 */
export async function makeRoom(obstacle: Obstacle): Promise<void> {
  while (await isStale(obstacle)) await takeAway(obstacle);
}

/** Resolves with false when nothing is in the way; throws when something is that stays. */
async function isStale({ address, syscall, replace, probe, isOpenHere }: Obstacle): Promise<boolean> {
  const { path } = address;
  const inUse = () => new SocketError("EADDRINUSE", { syscall, address });
  for (let looks = 0;; looks++) {
    const stat = process.getBuiltinModule("node:fs").lstatSync(fsPath(path), { throwIfNoEntry: false });
    if (stat === undefined) return false;
    if (!stat.isSocket() || !replace || isOpenHere(path)) throw inUse();
    const code = await probe(path);
    // ECONNREFUSED: nobody has the file open (connect(2)). Anything else, as EPROTOTYPE from a socket of another type, is a sign of life.
    // ENOENT: removed since, unless it goes on being both there and not.
    if (code !== "ECONNREFUSED" && (code !== "ENOENT" || looks === MAX_LOOKS)) throw inUse();
    const age = Date.now() - stat.mtimeMs;
    // A clock that was set back makes no file young.
    if (code === "ECONNREFUSED" && (age < 0 || age >= MIN_AGE_MS)) return true;
    if (code === "ECONNREFUSED") await sleep(MIN_AGE_MS - age);
  }
}

/** Removes a stale file under the lock, unless it is gone before. */
async function takeAway(obstacle: Obstacle): Promise<void> {
  const { mkdirSync, renameSync, rmdirSync, unlinkSync } = process.getBuiltinModule("node:fs");
  const { path } = obstacle.address;
  const { directory, name } = splitPath(path);
  const lock = inside(directory, `.${name}.lock`);
  const holder = uniqueName();
  const made = inside(directory, `.${holder}`);
  const held = inside(lock, holder);
  const stale = staleIn(held, holder);
  try {
    mkdirSync(fsPath(made));
    mkdirSync(fsPath(inside(made, holder)));
    if (!await acquire(obstacle, made, lock) || !await isStale(obstacle)) return;
    try {
      renameSync(fsPath(path), fsPath(stale));
    } catch (cause) {
      // Broken by another, who took this process for dead.
      if (codeOf(cause) !== "ENOENT") throw cause;
    }
  } finally {
    attempt(() => unlinkSync(fsPath(stale)));
    // The lock itself may be another's by now: it isn't empty then, and stays.
    for (const path of [held, lock, inside(made, holder), made]) attempt(() => rmdirSync(fsPath(path)));
  }
}

/** Resolves with whether the lock is ours; with false when it is not needed any more. */
async function acquire(obstacle: Obstacle, made: string, lock: string): Promise<boolean> {
  const { renameSync, readdirSync, rmdirSync, unlinkSync } = process.getBuiltinModule("node:fs");
  let holder: string | undefined;
  let since = 0;
  const deadline = performance.now() + LOCK_PATIENCE_MS;
  for (;;) {
    try {
      // An empty directory is replaced (rename(2)): what is left of a lock that was broken or given back.
      renameSync(fsPath(made), fsPath(lock));
      return true;
    } catch (cause) {
      const code = codeOf(cause);
      if (code !== "ENOTEMPTY" && code !== "EEXIST") throw cause;
    }
    const found = holderOf(readdirSync, lock);
    if (found !== holder) {
      holder = found;
      since = performance.now();
    }
    if (holder !== undefined && performance.now() - since > LOCK_TIMEOUT_MS) {
      const held = inside(lock, holder);
      attempt(() => unlinkSync(fsPath(staleIn(held, holder!))));
      attempt(() => rmdirSync(fsPath(held)));
      holder = undefined;
    }
    if (performance.now() > deadline) {
      const { address, syscall } = obstacle;
      throw new SocketError(
        "EADDRINUSE",
        { syscall, address },
        `a stale file is there, and the lock to remove it under, ${lock}, is held`,
      );
    }
    await sleep(LOCK_POLL_MS);
    if (!await isStale(obstacle)) return false;
  }
}

/**
 * Where the holder of a lock moves the stale file. No other directory has a file of that name: where others may write, a link in the
 * holder's place could lead anywhere.
 */
function staleIn(held: string, holder: string): string {
  return inside(held, `stale-socket.${holder}`);
}

/** Who holds a lock. */
function holderOf(readdirSync: typeof import("node:fs").readdirSync, lock: string): string | undefined {
  try {
    return readdirSync(fsPath(lock))[0];
  } catch {
    // Given back just now.
  }
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
