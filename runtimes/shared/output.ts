import type { Runtime } from "../../src/runtime.ts";

let guarded = false;
const ignore = (): void => {};

/**
 * Standard output and standard error by way of Node's `process`. Its streams report a reader that is gone (EPIPE) by an "error" event, and
 * one without a listener ends the program. A pipe that is full makes them gather what is written, on Node and Bun; Deno's block.
 */
export const output: Pick<Runtime, "print" | "guardOutput"> = {
  print(text) {
    output.guardOutput();
    return new Promise((resolve) => process.stderr.write(text, () => resolve()));
  },
  guardOutput() {
    if (guarded) return;
    guarded = true;
    process.stdout.on("error", ignore);
    process.stderr.on("error", ignore);
  },
};
