/** Programs that a test runs on the running runtime in a process of their own. */
import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";

const importMap = fileURLToPath(new URL("../offline/import_map.json", import.meta.url));

/** The command that runs a TypeScript module on the running runtime. */
export function commandFor(module: URL): string[] {
  const file = fileURLToPath(module);
  if ("Deno" in globalThis) return [process.execPath, "run", "-A", "--no-check", "--import-map", importMap, file];
  if ("Bun" in globalThis) return [process.execPath, file];
  return [process.execPath, "--disable-warning=ExperimentalWarning", file];
}

/** Runs a module of `programs/` to its end. */
export function runModule(
  name: string,
  wrap: (command: string[]) => string[] = (command) => command,
): Promise<{ status: number | null; stdout: string; stderr: string }> {
  const [binary, ...args] = wrap(commandFor(new URL(`programs/${name}`, import.meta.url)));
  const child = spawn(binary!, args, { stdio: ["ignore", "pipe", "pipe"] });
  let stdout = "";
  let stderr = "";
  child.stdout.on("data", (chunk) => stdout += chunk);
  child.stderr.on("data", (chunk) => stderr += chunk);
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (status) => resolve({ status, stdout: stdout === "" ? stderr : stdout, stderr }));
  });
}
