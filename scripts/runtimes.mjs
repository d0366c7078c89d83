/** The runtimes that the devDependencies install, and how each runs a program and a test. */
import { execFileSync } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const modules = join(root, "node_modules");
const importMap = join(root, "tests/offline/import_map.json");

/**
 * By name: `command` runs a program, `test` runs test files and writes a JUnit report to `report`, `leavesOut` are those that are run
 * there only when they are asked for.
 */
export const runtimes = [
  {
    name: "deno",
    command: [join(modules, ".bin/deno"), "run", "-A"],
    // Types are the affair of `npm run check`, and every thread would have its own checked again.
    test: (files, report) => ["test", "-A", "--no-check", "--import-map", importMap, `--junit-path=${report}`, ...files],
  },
  {
    name: "bun",
    command: [join(modules, ".bin/bun")],
    test: (files, report) => ["test", "--timeout", "60000", "--reporter=junit", `--reporter-outfile=${report}`, ...files],
  },
  { name: "node", command: [join(modules, "node/bin/node")], test: nodeTest },
  {
    name: "node22",
    command: [join(modules, "node22/bin/node"), "--disable-warning=ExperimentalWarning"],
    test: nodeTest,
    // What is no affair of the version is tried on the newest; what a file names is run all the same.
    leavesOut: /^\.\/tests\/(cross|docs|hostile|interop)\//,
  },
].map((runtime) => ({ ...runtime, version: version(runtime.command[0]) }));

function nodeTest(files, report) {
  return [
    "--disable-warning=ExperimentalWarning",
    "--test",
    // For a whole file too.
    "--test-timeout=300000",
    "--test-reporter=spec",
    "--test-reporter-destination=stdout",
    "--test-reporter=junit",
    `--test-reporter-destination=${report}`,
    ...files,
  ];
}

function version(binary) {
  if (!existsSync(binary)) return null;
  return /\d+\.\d+\.\d+/.exec(execFileSync(binary, ["--version"], { encoding: "utf8" }))?.[0] ?? null;
}
