import type * as childProcess from "node:child_process";

/**
 * Reads `+ PID` and `- PID`, and kills those that are left when its input ends, which is when the server is gone. Who reads it is no
 * JavaScript, as starting one more of that would cost more than the children it is for. What ends the server doesn't end it.
 */
const SCRIPT = `trap '' HUP INT TERM
pids=
while read -r op pid; do
  case $op in
    +) pids="$pids $pid" ;;
    -) rest=
       for p in $pids; do [ "$p" = "$pid" ] || rest="$rest $p"; done
       pids=$rest ;;
  esac
done
[ -z "$pids" ] || kill -9 $pids`;

let guardian: childProcess.ChildProcess | null | undefined;

/**
 * Has a child process killed when this one is gone, however it ended. A child notices that by itself, but not while it computes. Where
 * there is no shell, or Deno may not run it, that is all there is.
 *
 * @returns Called when the child has ended: its process id may be another's soon.
 */
export function guard(pid: number): () => void {
  if (guardian === undefined) guardian = start();
  tell(`+ ${pid}`);
  return () => tell(`- ${pid}`);
}

function start(): childProcess.ChildProcess | null {
  const { spawn } = process.getBuiltinModule("node:child_process") as typeof childProcess;
  // Deno would ask whoever sits at the terminal.
  const { Deno } = globalThis as { Deno?: { permissions: { querySync(permission: object): { state: string } } } };
  if (Deno !== undefined && Deno.permissions.querySync({ name: "run", command: "/bin/sh" }).state !== "granted") return null;
  try {
    // In a group of its own, that a Ctrl-C in the terminal doesn't reach.
    const child = spawn("/bin/sh", ["-c", SCRIPT], { stdio: ["pipe", "ignore", "ignore"], detached: true });
    child.on("error", () => guardian = null);
    child.on("exit", () => guardian = null);
    child.stdin!.on("error", () => {});
    child.unref();
    (child.stdin as unknown as { unref?(): void }).unref?.();
    return child;
  } catch {
    return null;
  }
}

function tell(line: string): void {
  guardian?.stdin?.write(line + "\n");
}
