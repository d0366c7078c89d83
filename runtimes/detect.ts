import type { Runtime } from "../src/runtime.ts";
import { bun, isBun } from "./bun.ts";
import { deno, isDeno } from "./deno.ts";
import { node } from "./node.ts";

/** The adapter of the runtime that this program runs on. Bun and Deno show much of Node's API, so Node is what is left. */
export function detectRuntime(): Runtime {
  if (isDeno) return deno;
  if (isBun) return bun;
  return node;
}
