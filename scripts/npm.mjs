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

/** Installs the devDependencies unless node_modules holds what the lock file says. */
export function install() {
  const installed = join(root, "node_modules/.package-lock.json");
  if (existsSync(installed) && sameVersions(installed)) return;
  console.log("installing the runtimes (Deno, Bun, Node) and typescript, once …");
  const { status } = spawnSync("npm", ["ci", "--no-audit", "--no-fund", "--loglevel=error"], { cwd: root, stdio: "inherit" });
  if (status !== 0) process.exit(status ?? 1);
}

function sameVersions(installed) {
  const versions = (file) => {
    const entries = Object.entries(JSON.parse(readFileSync(file, "utf8")).packages);
    return new Map(entries.map(([path, { version }]) => [path, version]));
  };
  const wanted = versions(join(root, "package-lock.json"));
  const there = versions(installed);
  const { devDependencies } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  return Object.keys(devDependencies).every((name) => {
    const path = `node_modules/${name}`;
    return there.has(path) && there.get(path) === wanted.get(path);
  });
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
