/** `npm start`: the echo server on each runtime, and how to talk to it. Ends on Ctrl-C. */
import { spawn } from "node:child_process";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { runtimes } from "./runtimes.mjs";

const root = fileURLToPath(new URL("..", import.meta.url));
const running = new Set();
let failed = false;

for (const { name, version, command: [binary, ...args] } of runtimes.filter(({ name }) => name !== "node22")) {
  const child = spawn(binary, [...args, "examples/echo.ts", "--listen", "tcp://127.0.0.1:0"], {
    cwd: root,
    stdio: ["ignore", "pipe", "inherit"],
    // A group of its own, so that Ctrl-C reaches it through this program alone, and only once.
    detached: true,
  });
  running.add(child);
  createInterface(child.stdout).on("line", (line) => {
    const [, host, port] = /^listening tcp:\/\/(.*):(\d+)$/.exec(line) ?? [];
    console.log(`${line}   echo on ${name} ${version}${port === undefined ? "" : `; talk to it: nc ${host} ${port}`}`);
  });
  child.once("exit", (code, signal) => {
    running.delete(child);
    if (code !== 0) {
      failed = true;
      console.error(`the server on ${name} ended with ${signal ?? code}`);
    }
    if (running.size === 0) process.exit(failed ? 1 : 0);
  });
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) {
  process.on(signal, () => {
    for (const child of running) child.kill("SIGTERM");
  });
}
