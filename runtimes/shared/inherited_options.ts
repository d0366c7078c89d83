import { withoutInspector } from "./child_environment.ts";

/** What stands before a program given as text, and makes it the program of whoever gets it. */
const EVAL = /^(-e|-p|-pe|--eval|--print)$/;
/** What makes of one program another one that runs it. */
const RUNNER = /^--(test|watch|hot)$/;

/**
 * The runtime's own options that a child is started with too: those of this process, such as `--import` or `--max-old-space-size`, less
 * those of its debugger, whose port a child can't have as well.
 */
export function inheritedOptions(): string[] {
  const options = process.execArgv;
  const kept = options.filter((option, i) => !EVAL.test(option) && !EVAL.test(options[i - 1] ?? "") && !RUNNER.test(option));
  return withoutInspector(kept);
}
