/** The variable that marks a child process, from its start until it runs the module that it was started for. */
const MARK = "SOCKETS_SERVER_CHILD";
/** The variables by which a debugger attaches to a process: two processes can't listen on the same port. */
const INSPECTOR_VARIABLES = ["BUN_INSPECT", "BUN_INSPECT_CONNECT_TO", "BUN_INSPECT_NOTIFY"];
/** The option by which one listens, and what sets its port. A port of its own may be the next argument. */
const INSPECTOR_OPTION = /^--(inspect(-brk|-wait|-port|-publish-uid)?|debug-port)(=|$)/;
const PORT_OPTION = /^--(inspect-port|debug-port|inspect-publish-uid)$/;

/**
 * The environment of a child process: that of this one, less its debugger, and with the child's mark. `undefined` where Deno doesn't allow
 * to read all of it: then it is inherited as it is.
 */
export function childEnvironment(): NodeJS.ProcessEnv | undefined {
  if (!mayRead(null)) return;
  const env: NodeJS.ProcessEnv = { ...process.env, [MARK]: String(process.pid) };
  for (const name of INSPECTOR_VARIABLES) delete env[name];
  for (const name of ["NODE_OPTIONS", "BUN_OPTIONS"]) {
    const options = env[name]?.split(/\s+/) ?? [];
    const kept = withoutInspector(options);
    if (kept.length < options.length) env[name] = kept.join(" ");
  }
  return env;
}

/** Options of a runtime, less those of a debugger. */
export function withoutInspector(options: readonly string[]): string[] {
  return options.filter((option, i) => !INSPECTOR_OPTION.test(option) && !PORT_OPTION.test(options[i - 1] ?? ""));
}

/** Takes the mark from this process: it is a child that runs what it was started for. */
export function unmark(): void {
  if (mayRead(MARK)) delete process.env[MARK];
}

/**
 * Ends this process if it was started as a child and runs another program: its own program, say, which would start the next child, and so
 * on. No process but the child itself is meant by its mark.
 */
export function endIfStray(): void {
  if (!mayRead(MARK) || process.env[MARK] !== String(process.ppid)) return;
  process.stderr.write(`process ${process.pid} was started to handle requests, and runs another program instead: it ends\n`);
  process.exit(1);
}

/** Whether Deno allows to read a variable, or all of them for `null`; it would ask whoever sits at the terminal. */
function mayRead(variable: string | null): boolean {
  const { Deno } = globalThis as {
    Deno?: { permissions: { querySync(permission: object): { state: string; partial: boolean } } };
  };
  if (Deno === undefined) return true;
  const { state, partial } = Deno.permissions.querySync(variable === null ? { name: "env" } : { name: "env", variable });
  return state === "granted" && !partial;
}
