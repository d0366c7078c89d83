/** The part of Deno's API that is used here. */
interface DenoApi {
  readonly build: { readonly os: string; readonly arch: string };
  readonly permissions: { querySync(permission: { name: "ffi" }): { state: string } };
  dlopen(
    library: string,
    functions: { ioctl: { parameters: ["i32", "usize"]; result: "i32" } },
  ): { symbols: { ioctl(fd: number, request: bigint): number }; close(): void };
}

/** ioctl(2): closes the descriptor when another program is run. Unlike fcntl(2) it takes no third argument, which foreign functions may pass wrongly. */
const FIOCLEX = 0x5451n;

/**
 * Keeps an inherited descriptor from the programs that this one runs, which hold the socket open else. Node and Bun do so for all of
 * them as they start. Deno has no function for it: without `--allow-ffi`, and but on Linux, nothing is done.
 */
export function setCloseOnExec(fd: number): void {
  const { build, dlopen, permissions } = (globalThis as unknown as { Deno: DenoApi }).Deno;
  if (build.os !== "linux" || permissions.querySync({ name: "ffi" }).state !== "granted") return;
  for (const library of ["libc.so.6", `libc.musl-${build.arch}.so.1`]) {
    try {
      const libc = dlopen(library, { ioctl: { parameters: ["i32", "usize"], result: "i32" } });
      libc.symbols.ioctl(fd, FIOCLEX);
      return libc.close();
    } catch {
      // The system has the other C library.
    }
  }
}
