import type { Channel } from "../../src/runtime.ts";

/** The channel of `node:diagnostics_channel`, which all three runtimes have, of this name. */
export function channel(name: string): Channel {
  return process.getBuiltinModule("node:diagnostics_channel").channel(name);
}
