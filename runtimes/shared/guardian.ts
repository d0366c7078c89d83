import type * as childProcess from "node:child_process";

/**
 * A program for a shell: reads `+ PID` and `- PID`, beside the process ids that are its arguments, and kills those that are left when its
 * input ends, which is when the server is gone. A second JavaScript process for it would cost more than the children do. The signals that
 * end the server don't end it.
 */
const SCRIPT = `trap '' HUP INT TERM
pids=$*
while read -r op pid; do
  case $op in
    +) pids="$pids $pid" ;;
    -) rest=
       for p in $pids; do [ "$p" = "$pid" ] || rest="$rest $p"; done
       pids=$rest ;;
  esac
done
[ -z "$pids" ] || kill -9 $pids`;

/** Guardians at once: when one is killed, the other watches until it is replaced. */
const GUARDIANS = 2;
/** Milliseconds that a guardian must have run to be replaced at once. One that ends sooner may not be able to run at all. */
const REPLACED_AFTER_MS = 1000;

/** The children that are running. */
const guarded = new Set<number>();
/** The running guardians; `null` until the first child is started. */
let guardians: Set<childProcess.ChildProcess> | null = null;

/**
 * Has a child process killed when this one is gone, however it ended. A child notices that by itself, but not while it computes. Where
 * there is no shell, or Deno may not run it, that is all there is.
 *
 * @returns Called when the child has ended: its process id may be another's soon.
 */
export function guard(pid: number): () => void {
  guarded.add(pid);
  if (guardians === null) {
    guardians = new Set();
    for (let i = 0; i < GUARDIANS; i++) start(guardians);
  } else {
    tell(guardians, `+ ${pid}`);
  }
  return () => {
    guarded.delete(pid);
    tell(guardians!, `- ${pid}`);
  };
}

/** Starts a guardian of all the children that are running. */
function start(running: Set<childProcess.ChildProcess>): void {
  const { spawn } = process.getBuiltinModule("node:child_process") as typeof childProcess;
  // Deno would ask whoever sits at the terminal.
  const { Deno } = globalThis as { Deno?: { permissions: { querySync(permission: object): { state: string } } } };
  if (Deno !== undefined && Deno.permissions.querySync({ name: "run", command: "/bin/sh" }).state !== "granted") return;
  const startedAt = performance.now();
  const replace = () => {
    running.delete(child);
    if (performance.now() - startedAt >= REPLACED_AFTER_MS) return start(running);
    const timer = setTimeout(start, REPLACED_AFTER_MS, running);
    (timer as unknown as { unref?(): void }).unref?.();
  };
  let child: childProcess.ChildProcess;
  try {
    // In a group of its own, that a Ctrl-C in the terminal doesn't reach.
    child = spawn("/bin/sh", ["-c", SCRIPT, "guardian", ...[...guarded].map(String)], {
      stdio: ["pipe", "ignore", "ignore"],
      detached: true,
    });
  } catch {
    return;
  }
  // There is no shell, which stays so, or nothing left to start one with, which passes.
  child.on("error", ({ code }: Error & { code?: string }) => {
    running.delete(child);
    if (code !== "ENOENT" && code !== "EACCES") replace();
  });
  child.on("exit", replace);
  child.stdin?.on("error", () => {});
  child.unref();
  (child.stdin as { unref?(): void } | null | undefined)?.unref?.();
  running.add(child);
}

function tell(running: Set<childProcess.ChildProcess>, line: string): void {
  for (const { stdin } of running) stdin?.write(line + "\n");
}
