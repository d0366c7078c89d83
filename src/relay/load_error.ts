/** The error for a module that could not be loaded: it names the module, which not every runtime's own error does. */
export function loadError(module: string, cause: unknown): Error {
  // On Bun a module that doesn't compile has several errors, and none has a stack.
  const causes = cause instanceof AggregateError ? cause.errors : [cause];
  const error = new Error(`could not load ${module}: ${causes.map(String).join("; ")}`, { cause });
  // What becomes of it elsewhere is a name, a message and a stack.
  const stack = (cause as { stack?: unknown } | undefined)?.stack;
  if (typeof stack === "string") error.stack = `${error}\ncaused by ${stack}`;
  return error;
}
