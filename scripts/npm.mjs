/**
 * What the npm scripts run: installs what is missing, then starts, tests, checks or measures. Plain JavaScript for the oldest Node
 * that a machine may have; the runtimes themselves come from the devDependencies.
 *
 *     node scripts/npm.mjs start | test | check | bench
 */
import { spawnSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export const root = fileURLToPath(new URL("..", import.meta.url));

/** Installs the devDependencies, which package.json pins, unless they are there in these versions. */
export function install() {
  const { devDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  if (Object.entries(devDependencies).every(([name, wanted]) => isInstalled(name, wanted))) return;
  console.log("installing the runtimes (Deno, Bun, Node) and typescript, once …");
  const { status } = spawnSync("npm", ["install", "--no-audit", "--no-fund", "--loglevel=error"], {
    cwd: root,
    stdio: "inherit",
  });
  if (status !== 0) process.exit(status ?? 1);
}

/** Whether a dependency is there: `1.2.3`, `npm:other@1.2.3`, or a folder of this repository. */
function isInstalled(name, wanted) {
  const manifest = join(root, "node_modules", name, "package.json");
  if (!existsSync(manifest)) return false;
  return wanted.startsWith("file:") || JSON.parse(readFileSync(manifest, "utf8")).version === wanted.replace(/^npm:.*@/, "");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [command, ...rest] = process.argv.slice(2);
  const commands = { start: "./start.mjs", test: "./test.mjs", check: "./check.mjs", bench: "../bench/run.mjs" };
  if (!Object.hasOwn(commands, command ?? "")) {
    console.error(`usage: node scripts/npm.mjs ${Object.keys(commands).join(" | ")}`);
    process.exit(2);
  }
  install();
  const script = fileURLToPath(new URL(commands[command], import.meta.url));
  const { status, signal } = spawnSync(process.execPath, [script, ...rest], { cwd: root, stdio: "inherit" });
  process.exit(signal === null ? status ?? 1 : 128);
}
