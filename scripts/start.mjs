/** `npm start`: the four echo servers on each runtime, and how to talk to them. Ends on Ctrl-C. */
import { spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { runtimes } from "./runtimes.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const directory = mkdtempSync(join(tmpdir(), "sockets-start-"));
const running = new Set();
let failed = false;

for (const { name, version, command: [binary, ...args] } of runtimes.filter(({ name }) => name !== "node22")) {
  const addresses = [
    "tcp://127.0.0.1:0",
    "udp://127.0.0.1:0",
    `unix:${directory}/${name}.sock`,
    `unixgram:${directory}/${name}.dgram`,
  ];
  for (const address of addresses) {
    const child = spawn(binary, [...args, "examples/echo.ts", "--listen", address], {
      cwd: root,
      stdio: ["ignore", "pipe", "inherit"],
      // A group of its own, so that Ctrl-C reaches it through this program alone, and only once.
      detached: true,
    });
    running.add(child);
    createInterface(child.stdout).on("line", (line) => console.log(`${line}   echo on ${name} ${version}; ${hint(line)}`));
    child.once("exit", (code, signal) => {
      running.delete(child);
      if (code !== 0) {
        failed = true;
        console.error(`the server on ${name} ended with ${signal ?? code}`);
      }
      if (running.size > 0) return;
      rmSync(directory, { recursive: true, force: true });
      process.exit(failed ? 1 : 0);
    });
  }
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    for (const child of running) child.kill("SIGTERM");
  });
}

/** How to talk to a server. */
function hint(line) {
  const [, transport, host, port] = /^listening (tcp|udp):\/\/(.*):(\d+)$/.exec(line) ?? [];
  if (transport !== undefined) return `talk to it: nc ${transport === "udp" ? "-u " : ""}${host} ${port}`;
  const [, unix, path] = /^listening (unix|unixgram):(.*)$/.exec(line) ?? [];
  return unix === "unix" ? `talk to it: nc -U ${path}` : `talk to it: socat - UNIX-SENDTO:${path},bind=${path}.me`;
}
