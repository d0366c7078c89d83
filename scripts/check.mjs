/** `npm run check`: format, lint, types, documentation, publishing, layering. Runs all of them and fails when any does. */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync } from "node:fs";
import { join, normalize } from "node:path";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("..", import.meta.url));
const deno = join(root, "node_modules/.bin/deno");
const tsc = join(root, "node_modules/.bin/tsc");
const importMap = ["--import-map", "tests/offline/import_map.json"];
const entries = ["mod.ts", "testing.ts", "prometheus.ts", "otel.ts", "monitor.ts", "top.ts"];

const failures = [
  run("format", deno, ["fmt", "--check"]),
  run("lint", deno, ["lint"]),
  run("types (deno)", deno, ["check", ...importMap, ...entries, "examples/", "tests/", "bench/"]),
  run("types (tsc)", tsc, ["-p", "."]),
  run("types of src/ alone, without those of any runtime", tsc, ["-p", "scripts/tsconfig.src.json"]),
  run("documentation", deno, ["doc", "--lint", ...entries]),
  // Uncommitted changes are the author's affair here; the check is about what would be published.
  run("publishing", deno, ["publish", "--dry-run", "--allow-dirty"]),
  layering(),
].filter((name) => name !== null);

console.log(failures.length === 0 ? "\ncheck: all passed" : `\ncheck: failed: ${failures.join(", ")}`);
process.exit(failures.length === 0 ? 0 : 1);

function run(name, command, args) {
  console.log(`\n--- ${name}`);
  const { status } = spawnSync(command, args, { cwd: root, stdio: ["ignore", "inherit", "inherit"] });
  return status === 0 ? null : name;
}

/** `mod.ts` → `src/` ← `runtimes/`: src/ imports nothing but itself and names no runtime. */
function layering() {
  console.log("\n--- layering");
  const findings = [];
  for (const file of sourcesIn("src").map((file) => file.slice("src/".length))) {
    const text = readFileSync(join(root, "src", file), "utf8");
    // The examples in comments import what a user would.
    const code = text.replace(/\/\*[^]*?\*\//g, "").replace(/\/\/.*/g, "");
    for (const [, from] of code.matchAll(/(?:from|import\()\s*"([^"]+)"/g)) {
      const inside = /^\.\.?\//.test(from) && !normalize(join(file, "..", from)).startsWith("..");
      if (!inside) findings.push(`src/${file} imports ${from}`);
    }
    for (const [name] of code.matchAll(/\b(Deno|Bun)\.|\b(process|require|Buffer)\b(?=[.(])/g)) {
      findings.push(`src/${file} names a runtime: ${name}`);
    }
  }
  // In a bundle it is true of every module: the program that imports one would run it.
  const importable = [...entries, ...sourcesIn("src"), ...sourcesIn("runtimes")];
  for (const file of importable) {
    const code = readFileSync(join(root, file), "utf8").replace(/\/\*[^]*?\*\//g, "");
    if (code.includes("import.meta.main")) {
      findings.push(`${file} is a module and a program: make the program an entry of its own`);
    }
  }
  for (const finding of findings) console.log(finding);
  if (findings.length === 0) console.log("ok");
  return findings.length === 0 ? null : "layering";
}

/** The modules in a folder, by their paths from the root. */
function sourcesIn(folder) {
  return readdirSync(join(root, folder), { recursive: true }).filter((file) => file.endsWith(".ts")).map((file) =>
    `${folder}/${file}`
  );
}
