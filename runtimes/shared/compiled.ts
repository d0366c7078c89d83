/** Whether the program is compiled: one file, with its runtime in it, which `process.execPath` names and which takes none of its options. */
export function isCompiled(): boolean {
  const { Bun, Deno } = globalThis as {
    Bun?: { isStandaloneExecutable?: boolean; main: string };
    Deno?: { build: { standalone?: boolean } };
  };
  if (Deno !== undefined) return Deno.build.standalone === true;
  // Where it has its modules then, on Windows as well; older ones of Bun don't say more.
  if (Bun !== undefined) {
    return Bun.isStandaloneExecutable === true || /[/\\](\$bunfs|~BUN)[/\\]/.test(Bun.main + import.meta.url);
  }
  return process.getBuiltinModule("node:sea")?.isSea() === true;
}
