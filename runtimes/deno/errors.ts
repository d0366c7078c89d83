import type { Address } from "../../src/address.ts";
import type { SocketError } from "../../src/errors.ts";
import { toSocketError } from "../shared/translate.ts";

/** Deno's errors carry the code of the system call, or its number in the words; its own are told apart by their class and their words. */
export function explain(cause: unknown, syscall: string, address: Address, fallback = "EIO"): SocketError {
  const { message } = cause as Error;
  if (message.startsWith("failed to lookup")) return toSocketError(cause, syscall, address, "ENOTFOUND");
  const number = /\(os error (\d+)\)$/.exec(message)?.[1];
  if (number === undefined) return toSocketError(cause, syscall, address, fallback);
  return toSocketError(cause, syscall, address, process.getBuiltinModule("node:util").getSystemErrorName(-Number(number)));
}
