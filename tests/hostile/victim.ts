/** A server in a process of its own that is attacked, and what the system says of it. */
import { readdirSync, readFileSync } from "node:fs";
import { until } from "../conformance/serving.ts";
import { type Example, runtimeName } from "../interop/programs.ts";

/** Why these tests can't run here; `false` where they can. */
export const notLinux: string | false = process.platform === "linux"
  ? false
  : "descriptors are counted in /proc, which only Linux has";

/** The name of a test here. */
export function title(name: string): string {
  return `${runtimeName} under attack: ${name}${notLinux === false ? "" : ` [skipped: ${notLinux}]`}`;
}

/** The descriptors that a process has open. */
export function descriptors({ pid }: Example): number {
  return readdirSync(`/proc/${pid}/fd`).length;
}

/** The bytes of memory that a process has in use. */
export function memory({ pid }: Example): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))![1]) * 1024;
}

/** Waits until a server has no more descriptors open than it had. */
export function recovered(server: Example, before: number): Promise<void> {
  return until(() => descriptors(server) <= before);
}
