/** The examples as processes on the runtime that runs the test, and the programs that talk to them. */
import { type ChildProcess, spawn } from "node:child_process";
import { accessSync, constants, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { getRuntime } from "@sockets/server";
import { commandFor } from "../conformance/children.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** What the names of the tests begin with. */
export const runtimeName: string = getRuntime().name;

/** Whether there are Unix datagram sockets here; `false` or else what would make it work. */
export const missingUnixDatagram: string | false = getRuntime().capabilities.unixDatagram === true
  ? false
  : getRuntime().capabilities.unixDatagram as string;

/** A program that runs, and that a test talks to. */
export class Program {
  readonly #child: ChildProcess;
  #lines: string[] = [];
  #rest = "";
  #closed = false;
  #wake = () => {};
  #stderr = "";
  /** Resolves with its exit status, or the signal that ended it. */
  readonly exited: Promise<number | string | null>;

  constructor(command: string, args: string[], cwd = root, env = process.env) {
    this.#child = spawn(command, args, { cwd, env, stdio: ["pipe", "pipe", "pipe"] });
    const { stdin, stdout, stderr } = this.#child;
    // A program that ends without reading on is no error of the test.
    stdin!.on("error", () => {});
    stderr!.setEncoding("utf8").on("data", (text: string) => this.#stderr += text);
    stdout!.setEncoding("utf8").on("data", (text: string) => {
      const lines = (this.#rest + text).split("\n");
      this.#rest = lines.pop()!;
      this.#lines.push(...lines);
      this.#wake();
    });
    this.exited = new Promise((resolve, reject) => {
      this.#child.once("error", reject);
      this.#child.once("close", (status, signal) => {
        this.#closed = true;
        this.#wake();
        resolve(status ?? signal);
      });
    });
  }

  get pid(): number {
    return this.#child.pid!;
  }

  /** What it wrote to stderr so far. */
  get stderr(): string {
    return this.#stderr;
  }

  /** The next line of its output. */
  async line(): Promise<string> {
    while (this.#lines.length === 0) {
      if (this.#closed) throw new Error(`the program ended, its last words: ${this.#rest}${this.#stderr}`);
      await new Promise<void>((resolve) => this.#wake = resolve);
    }
    return this.#lines.shift()!;
  }

  send(text: string): void {
    this.#child.stdin!.write(text);
  }

  /** Ends its input. */
  end(): void {
    this.#child.stdin!.end();
  }

  // Not child.kill: Deno's then reports the signal as the cause of the exit whatever the status is.
  kill(signal: NodeJS.Signals): void {
    if (this.#child.exitCode === null && this.#child.signalCode === null) process.kill(this.pid, signal);
  }

  /** Lets it run to its end; what it printed. */
  async finish(): Promise<{ status: number | string | null; stdout: string; stderr: string }> {
    const status = await this.exited;
    const stdout = [...this.#lines, this.#rest].join("\n");
    this.#lines = [];
    return { status, stdout, stderr: this.#stderr };
  }
}

/** Runs a program to its end. */
export function run(
  command: string,
  args: string[],
  input = "",
  cwd = root,
): Promise<{ status: number | string | null; stdout: string; stderr: string }> {
  const program = new Program(command, args, cwd);
  program.send(input);
  program.end();
  return program.finish();
}

/** An example that serves. */
export interface Example extends Program {
  /** What its first lines say. */
  readonly addresses: string[];
  /** The port of the first address. */
  readonly port: string;
}

/** Starts an example, without waiting for anything. */
export function launch(example: string, args: string[]): Program {
  const [binary, ...rest] = commandFor(new URL(`../../examples/${example}`, import.meta.url));
  return new Program(binary!, [...rest, ...args]);
}

/**
 * Runs an example that serves as many addresses as are listened to while `use` runs, and ends it with a signal that it must heed.
 * `expected` says whether what it wrote to stderr is as it should be: nothing, by default.
 */
export async function serving<T>(
  example: string,
  args: string[],
  use: (server: Example) => Promise<T>,
  expected: (stderr: string) => boolean = (stderr) => stderr === "",
): Promise<T> {
  const program = launch(example, args);
  try {
    const addresses: string[] = [];
    for (const arg of args) {
      if (arg !== "--listen") continue;
      const line = await program.line();
      if (!line.startsWith("listening ")) throw new Error(`the first line is ${JSON.stringify(line)}`);
      addresses.push(line.slice("listening ".length));
    }
    const result = await use(Object.assign(program, { addresses, port: /:(\d+)$/.exec(addresses[0]!)?.[1] ?? "" }));
    program.kill("SIGTERM");
    const status = await program.exited;
    if (status !== 0 || !expected(program.stderr)) throw new Error(`${example} ended with ${status}: ${program.stderr}`);
    return result;
  } finally {
    program.kill("SIGKILL");
    await program.exited;
  }
}

/** A folder of its own for the sockets and files of `use`. */
export async function withFolder(use: (folder: string) => Promise<void>): Promise<void> {
  const folder = mkdtempSync(join(tmpdir(), "sockets-interop-"));
  try {
    await use(folder);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

/** A test that needs a program; where that is not installed it is skipped, and its name says so. */
export function testWith(tool: string, name: string, body: () => Promise<void>, options: { timeout?: number } = {}): void {
  if (isInstalled(tool)) void test(`${runtimeName} ${name}`, options, body);
  else void test(`${runtimeName} ${name} [skipped: ${tool} is not installed; .ci/run does that]`, { skip: true }, () => {});
}

function isInstalled(tool: string): boolean {
  return (process.env.PATH ?? "").split(delimiter).some((folder) => {
    try {
      accessSync(join(folder, tool), constants.X_OK);
      return true;
    } catch {
      return false;
    }
  });
}
