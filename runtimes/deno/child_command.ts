import type { ProcessOptions } from "../../src/runtime.ts";
import type { Command } from "../shared/processes.ts";

/** The part of Deno's API that is used here. */
interface DenoApi {
  readonly mainModule: string;
  readonly listenDatagram?: unknown;
  readonly openKv?: unknown;
  readonly cron?: unknown;
  readonly permissions: { querySync(permission: Permission): { readonly state: string; readonly partial: boolean } };
}

interface Permission {
  readonly name: string;
  readonly path?: string;
  readonly host?: string;
  readonly command?: string;
}

const Deno = (globalThis as { Deno?: DenoApi }).Deno!;

/** Hosts that Deno imports from unless it is told of others. */
const IMPORT_HOSTS = [
  "deno.land:443",
  "jsr.io:443",
  "esm.sh:443",
  "raw.esm.sh:443",
  "cdn.jsdelivr.net:443",
  "raw.githubusercontent.com:443",
  "gist.githubusercontent.com:443",
];

/**
 * Runs a module from standard input, as if it stood beside the program's main module: Deno then finds the same `deno.json` and
 * `package.json`, so that a handler can import what the program can. It may do what this process may, as far as that can be asked.
 */
export function childCommand(module: string, { module: handlerUrl, serverAddress }: ProcessOptions["start"]): Command {
  const { dirname } = process.getBuiltinModule("node:path");
  const { fileURLToPath } = process.getBuiltinModule("node:url");
  const cwd = process.cwd();
  const main = Deno.mainModule.startsWith("file:") ? dirname(fileURLToPath(Deno.mainModule)) : cwd;
  // Only who may read a directory can change to it.
  const start = isGranted({ name: "read", path: cwd }) ? main : cwd;
  const handler = new URL(handlerUrl);
  handler.hash = "";
  const paths = [cwd, main, ..."path" in serverAddress ? [serverAddress.path] : []];
  const hosts = "path" in serverAddress ? [] : [serverAddress.hostname, `${serverAddress.hostname}:${serverAddress.port}`];
  const importHosts = [import.meta.url, handler.href].map((url) => hostOf(new URL(url))).filter((host) => host !== null);
  return {
    args: [
      "run",
      "--no-check",
      "--no-prompt",
      "--ext=js",
      ...unstableFlags(),
      flag("read", paths.map((path) => ({ path }))),
      flag("write", paths.map((path) => ({ path }))),
      flag("net", hosts.map((host) => ({ host }))),
      flag("env"),
      flag("sys"),
      flag("run", [{ command: process.execPath }]),
      flag("ffi"),
      flag("import", [...IMPORT_HOSTS, ...importHosts].map((host) => ({ host }))),
      "-",
    ],
    cwd: start,
    input: [
      // A module that is named here belongs to the program, which needs no permission to read it.
      `void (() => import(${JSON.stringify(handler.href)}));`,
      start === cwd ? "" : `process.chdir(${JSON.stringify(cwd)});`,
      module,
    ].join("\n"),
  };
}

/**
 * What a child gets of one kind of permission: all, if this process has all; or else those of `candidates` that it has. Which others
 * it was given as a list, nobody can ask; and of what it has but for exceptions, a child gets nothing, as nobody can ask for those.
 */
function flag(name: string, candidates: Omit<Permission, "name">[] = []): string {
  if (isGranted({ name })) return `--allow-${name}`;
  const granted = candidates.filter((candidate) => isGranted({ name, ...candidate })).flatMap(Object.values<string>);
  // A comma would make two of one.
  const list = new Set(granted.filter((value) => !value.includes(",")));
  // And never no flag at all: node:child_process adds one that allows everything to a command without.
  return list.size > 0 ? `--allow-${name}=${[...list].join(",")}` : `--deny-${name}`;
}

function isGranted(permission: Permission): boolean {
  const { state, partial } = Deno.permissions.querySync(permission);
  return state === "granted" && !partial;
}

/** The flags of the unstable features that this process was seen to have; those in `deno.json` the child finds itself. */
function unstableFlags(): string[] {
  return [
    ...Deno.listenDatagram === undefined ? [] : ["--unstable-net"],
    ...Deno.openKv === undefined ? [] : ["--unstable-kv"],
    ...Deno.cron === undefined ? [] : ["--unstable-cron"],
  ];
}

/** The host that a module comes from, with its port; `null` when it comes from none. */
function hostOf({ protocol, hostname, port }: URL): string | null {
  return hostname === "" ? null : `${hostname}:${port || (protocol === "https:" ? 443 : 80)}`;
}
