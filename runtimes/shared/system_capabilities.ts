import type { Capabilities } from "../../src/runtime.ts";
import { isCompiled } from "./compiled.ts";

/** What is the operating system's, or all runtimes', to say. Not before somebody asks: the first look at `process` takes Deno 40 ms. */
export function systemCapabilities(): Pick<
  Capabilities,
  "abstractNames" | "socketPathLength" | "threads" | "processes" | "cores" | "threadMemory"
> {
  const linux = process.platform === "linux";
  const compiled = isCompiled();
  return {
    abstractNames: linux || "abstract names exist on Linux alone; use the path of a file",
    // sun_path has 108 bytes on Linux (unix(7)) and 104 on macOS and the BSDs; the last one is the terminating NUL.
    socketPathLength: linux ? 107 : 103,
    // Deno's compiled programs keep their modules; in the others there is one file, which has no module to begin a thread with.
    threads: !compiled || process.versions.deno !== undefined ||
      "a compiled program has no modules that a thread could load: run it with the runtime itself, or use an Async server",
    processes: !compiled ||
      "in a compiled program each child process would be the program once more: run it with the runtime itself, or use an Async server",
    cores: process.getBuiltinModule("node:os").availableParallelism(),
    threadMemory: process.versions.bun === undefined ||
      "Bun limits the process's memory, not a thread's: the child processes of a forking server have their own",
  };
}
