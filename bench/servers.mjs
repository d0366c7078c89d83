/** How each server is started: those on a runtime by their scripts, the others by what their language needs. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** What the user can mend: shown without a stack. */
export class UsageError extends Error {}

/** A server that can't be had here; the message says why. */
export class Unsupported extends Error {}

export const ROOT = fileURLToPath(new URL("..", import.meta.url));

export const RUNTIMES = {
  deno: { title: "Deno", command: ["node_modules/.bin/deno", "run", "-A", "--no-check"] },
  bun: { title: "Bun", command: ["node_modules/.bin/bun"] },
  node: { title: "Node", command: ["node_modules/node/bin/node"] },
  node22: { title: "Node", command: ["node_modules/node22/bin/node"] },
};

/** Whether a server is the same whatever the runtime: it is measured once in a round. */
export function isForeign(script) {
  return !/\.ts( |$)/.test(script);
}

/**
 * The command that starts a server, and the pattern in its output that says that it listens; `$1` or else `address` is where.
 *
 * @param script A file in `bench/servers/` or `examples/` with its arguments, or the name of a program.
 * @throws {Unsupported} When there is nothing here to run it.
 */
export async function serverCommand(runtime, script) {
  const [name, ...args] = script.split(" ");
  const path = name.includes("/") ? name : `bench/servers/${name}`;
  const ready = /^listening (.*)\r?\n/m;
  if (/\.[jt]s$/.test(name)) {
    const [file, ...runtimeArgs] = RUNTIMES[runtime].command;
    return { command: [join(ROOT, file), ...runtimeArgs, path, ...args], ready };
  }
  if (name.endsWith(".c")) return { command: [compileC(path), ...args], ready };
  if (name.endsWith(".go")) return { command: [compileGo(path), ...args], ready };
  if (name.endsWith(".py")) {
    needs("python3");
    return { command: ["python3", path, ...args], ready };
  }
  const port = await freePort();
  const address = `tcp://127.0.0.1:${port}`;
  if (name === "redis-server") {
    needs("redis-server");
    return {
      command: ["redis-server", "--port", port, "--save", "", "--appendonly", "no"],
      ready: /Ready to accept connections/,
      address,
    };
  }
  if (name === "http.server") {
    needs("python3");
    const command = ["python3", "-u", "-m", "http.server", port, "--bind", "127.0.0.1", "--directory", filesDirectory()];
    return { command, ready: /Serving HTTP/, address };
  }
  throw new Error(`no such server: ${script}`);
}

let temporary;
process.on("exit", () => {
  if (temporary !== undefined) rmSync(temporary, { recursive: true, force: true });
});

/** A directory that is removed at the end. */
export function temporaryDirectory() {
  return temporary ??= mkdtempSync(join(tmpdir(), "bench-"));
}

/** What the servers of files serve: one file of 1 KiB. */
export function filesDirectory() {
  const directory = join(temporaryDirectory(), "files");
  mkdirSync(directory, { recursive: true });
  writeFileSync(join(directory, "file.txt"), "x".repeat(1023) + "\n");
  return directory;
}

const compiled = new Map();

/** A script of `bench/servers/`, and the package with it, as the JavaScript that JSR makes of it for Bun and Node; its path. */
export function asJavaScript(script) {
  const directory = compile("package.js", (outDir) => {
    mkdirSync(outDir);
    writeFileSync(join(outDir, "package.json"), JSON.stringify({ type: "module" }));
    const config = join(outDir, "tsconfig.json");
    const compilerOptions = {
      noEmit: false,
      noCheck: true,
      allowImportingTsExtensions: false,
      rewriteRelativeImportExtensions: true,
      rootDir: ROOT,
      outDir,
      typeRoots: [join(ROOT, "node_modules/@types")],
    };
    const files = ["import.ts", "empty.ts"].map((name) => join(ROOT, "bench/servers", name));
    writeFileSync(config, JSON.stringify({ extends: join(ROOT, "tsconfig.json"), compilerOptions, include: [], files }));
    const { status, stdout } = spawnSync(join(ROOT, "node_modules/.bin/tsc"), ["-p", config], { encoding: "utf8" });
    if (status !== 0) throw new Error(`tsc ended with ${status}: ${stdout}`);
  });
  return join(directory, "bench/servers", script.replace(/ts$/, "js"));
}

/** Compiles a program in C and gives its path. */
export function compileC(source) {
  return compile(source, (program) => {
    const cc = spawnSync("cc", ["-O2", "-o", program, join(ROOT, source)], { encoding: "utf8" });
    const hint = "install a C compiler: `apt-get install gcc libc6-dev`";
    if (cc.error !== undefined) throw new UsageError(`the load generators need a C compiler, cc: ${cc.error.message}; ${hint}`);
    if (cc.status !== 0) {
      throw new UsageError(`${source} (Linux only) doesn't compile:\n${cc.stderr}If headers are missing, ${hint}`);
    }
  });
}

function compileGo(source) {
  needs("go", "version");
  return compile(source, (program) => {
    const env = { ...process.env, GOCACHE: join(temporaryDirectory(), "go"), GOFLAGS: "-mod=mod", GO111MODULE: "off" };
    const go = spawnSync("go", ["build", "-o", program, join(ROOT, source)], { encoding: "utf8", env });
    if (go.status !== 0) throw new UsageError(`${source} doesn't compile:\n${go.stderr}`);
  });
}

function compile(source, make) {
  let program = compiled.get(source);
  if (program === undefined) {
    program = join(temporaryDirectory(), source.replace(/.*\//, "").replace(/\.(\w+)$/, "-$1"));
    make(program);
    compiled.set(source, program);
  }
  return program;
}

const versions = new Map();

/** Fails when a program isn't installed. */
export function needs(program, versionOption = "--version") {
  if (!versions.has(program)) {
    const { error, stdout, stderr } = spawnSync(program, [versionOption], { encoding: "utf8" });
    versions.set(program, error === undefined ? /\d+\.\d+(\.\d+\S*)?/.exec(stdout + stderr)?.[0] ?? "" : undefined);
  }
  if (versions.get(program) === undefined) throw new Unsupported(`${program} is not installed`);
}

/** The programs that were needed and are there, with their versions. */
export function usedPrograms() {
  return [...versions].filter(([, version]) => version !== undefined).map(([name, version]) => `${name} ${version}`.trim());
}

/** Fails for a runtime that isn't installed. Not left out silently: a table without one would read as if it were complete. */
export function checkRuntime(name) {
  const [path] = RUNTIMES[name].command;
  if (!existsSync(join(ROOT, path))) throw new UsageError(`${path} is missing: run \`npm install\`, or choose with --runtime`);
}

/** A runtime as it is shown, with its version. */
export function runtimeTitle(name) {
  const { title, command } = RUNTIMES[name];
  const { stdout } = spawnSync(join(ROOT, command[0]), ["--version"], { encoding: "utf8" });
  return `${title} ${/\d+\.\d+\.\d+\S*/.exec(stdout ?? "")?.[0] ?? "of unknown version"}`;
}

/** For programs that take a port and can't be asked for one. Nobody else is likely to get it meanwhile. */
function freePort() {
  return new Promise((resolve, reject) => {
    const server = createServer().once("error", reject).listen(0, "127.0.0.1", () => {
      const { port } = server.address();
      server.close(() => resolve(String(port)));
    });
  });
}
