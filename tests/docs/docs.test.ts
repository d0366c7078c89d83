/** Runs every example of the README and of the doc comments in a process of its own, on the runtime that runs this. */
import { assert, assertEquals } from "@std/assert";
import { spawn } from "node:child_process";
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { after, test } from "node:test";
import { fileURLToPath, pathToFileURL } from "node:url";
import { commandFor } from "../conformance/children.ts";

interface Example {
  /** Path below the root of the package. */
  file: string;
  /** The line of the opening fence, counted from 1. */
  line: number;
  /** What the fence names it, as in "ts handler.ts", for the other examples of its document; `null` when it does not. */
  name: string | null;
  code: string;
}

const isDeno = "Deno" in globalThis;
const isBun = "Bun" in globalThis;
const lacksUsing = !isDeno && !isBun && Number.parseInt(process.versions.node) < 24;

// While CI runs all runtimes at once, two seconds of work have taken more than twenty.
const RUN_TIMEOUT = 90_000;
const CHECK_TIMEOUT = 120_000;

const root = fileURLToPath(new URL("../../", import.meta.url));
const folder = fileURLToPath(new URL(`.tmp-${process.pid}/`, import.meta.url));
const importMap = join(root, "tests/offline/import_map.json");

function sources(): string[] {
  const inSrc = (readdirSync(join(root, "src"), { recursive: true }) as string[])
    .map((name) => `src/${name.replaceAll("\\", "/")}`)
    .filter((name) => name.endsWith(".ts"));
  return ["README.md", "mod.ts", "testing.ts", "prometheus.ts", "otel.ts", "monitor.ts", "top.ts", ...inSrc.sort()];
}

/** The text of each line of a module that stands in a doc comment, and `null` for each other line. */
function docLines(lines: string[]): (string | null)[] {
  let inside = false;
  return lines.map((line) => {
    if (!inside) {
      inside = /^\s*\/\*\*/.test(line) && !line.includes("*/");
      return null;
    }
    inside = !line.includes("*/");
    return inside ? line.replace(/^\s*\* ?/, "") : null;
  });
}

function examplesOf(file: string): Example[] {
  const raw = readFileSync(join(root, file), "utf8").split(/\r?\n/);
  const lines = file.endsWith(".md") ? raw : docLines(raw);
  const examples: Example[] = [];
  let fence: { line: number; isExample: boolean; name: string | null; code: string[] } | null = null;
  for (const [index, line] of lines.entries()) {
    if (fence === null) {
      const opening = line?.match(/^\s*```(\S*)(?:\s+(\S+\.ts))?/);
      if (opening) {
        const [, language, name = null] = opening;
        fence = { line: index + 1, isExample: /^(ts|typescript)$/.test(language!), name, code: [] };
      }
    } else if (line === null) {
      throw new Error(`${file}:${fence.line}: the code block has no end`);
    } else if (/^\s*```\s*$/.test(line)) {
      if (fence.isExample) examples.push({ file, line: fence.line, name: fence.name, code: fence.code.join("\n") });
      fence = null;
    } else {
      fence.code.push(line);
    }
  }
  if (fence !== null) throw new Error(`${file}:${fence.line}: the code block has no end`);
  return examples;
}

/** Runs a command of this runtime; fails with what it printed to stderr unless it ends with 0 in time. */
function run(args: string[], timeout: number): Promise<void> {
  const child = spawn(process.execPath, args, {
    cwd: root,
    env: { ...process.env, NO_COLOR: "1" },
    stdio: ["ignore", "ignore", "pipe"],
  });
  let stderr = "";
  child.stderr.on("data", (chunk) => stderr += chunk);
  return new Promise((resolve, reject) => {
    const fail = (what: string) => reject(new Error(`${what}; stderr:\n${stderr}`));
    const timer = setTimeout(() => {
      child.kill("SIGKILL");
      fail(`still running after ${timeout / 1000} s`);
    }, timeout);
    child.once("error", (error) => {
      clearTimeout(timer);
      reject(error);
    });
    child.once("close", (status, signal) => {
      clearTimeout(timer);
      if (status === 0) resolve();
      else fail(signal === null ? `ended with status ${status}` : `ended by ${signal}`);
    });
  });
}

/** The examples of a document are in one folder, where each finds those that have a name. */
function pathOf({ file, line, name }: Example): string {
  return join(folder, file.replace(/[^\w]+/g, "_"), name ?? `${line}.ts`);
}

const examples = sources().flatMap(examplesOf);

const cleanUp = () => rmSync(folder, { recursive: true, force: true });
cleanUp();
mkdirSync(folder);
after(cleanUp);
if (isDeno) globalThis.addEventListener("unload", cleanUp); // with --filter, Deno does not come to run `after`
// The lines keep their numbers, so a stack or a diagnostic shows the line of the document.
for (const example of examples) {
  mkdirSync(dirname(pathOf(example)), { recursive: true });
  writeFileSync(pathOf(example), "\n".repeat(example.line) + example.code + "\n");
}

test("the examples are found", () => {
  assert(examples.length >= 15, `${examples.length} examples`);
  assertEquals(new Set(examples.map(pathOf)).size, examples.length);
});

for (const example of examples) {
  const name = `${example.file}:${example.line}: runs`;
  const body = () => run(commandFor(pathToFileURL(pathOf(example))).slice(1), RUN_TIMEOUT);
  if (lacksUsing && /\busing\s+[\w$]+\s*(=|\bof\b)/.test(example.code)) {
    test(`${name} [skipped: Node 22 lacks \`await using\`]`, { skip: true }, body);
  } else {
    test(name, body);
  }
}

if (isDeno) {
  test("the examples type-check", () => run(["check", "--import-map", importMap, ...examples.map(pathOf)], CHECK_TIMEOUT));
}
