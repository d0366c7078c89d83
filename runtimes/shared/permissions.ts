import type { Address } from "../../src/address.ts";

/** Whether an error is Deno's, of a permission that the program was not started with. */
export function isRefused(cause: unknown): cause is Error {
  return (cause as { name?: unknown } | null)?.name === "NotCapable";
}

/**
 * What such an error means, with the flags that the operation needs. Deno names one thing at a time; the file of a Unix socket takes
 * several.
 *
 * @param address What the operation was about; without one, Deno's own words say it.
 */
export function missingPermission({ message }: Error, syscall = "", address?: Address): string {
  const [, access, what] = /^Requires (\w+) access(?: to "([^]*?)")?/.exec(message) ?? [];
  if (access === undefined) return message;
  return `not permitted: start Deno with ${flags(access, what, syscall, address)}`;
}

function flags(access: string, what: string | undefined, syscall: string, address: Address | undefined): string {
  const flag = `--allow-${access}${what === undefined ? "" : `=${what}`}`;
  if (address === undefined) return flag;
  if (!("path" in address)) {
    // The ports of those who ask are not known beforehand.
    return access === "net" && syscall === "send"
      ? `--allow-net=${bracketed(address.hostname)}, or --allow-net for all hosts`
      : flag;
  }
  // No argument of a program has a NUL, so that an abstract name can't be named there.
  if (access === "net") return address.path.startsWith("\0") ? "--allow-net" : `--allow-net=unix:${address.path}`;
  if (access !== "read" && access !== "write") return flag;
  // To bind a socket is to make a file, beside others with names of their own.
  const place = syscall === "connect" ? address.path : process.getBuiltinModule("node:path").dirname(address.path);
  return `--allow-read=${place} --allow-write=${place}`;
}

function bracketed(hostname: string): string {
  return hostname.includes(":") ? `[${hostname}]` : hostname;
}
