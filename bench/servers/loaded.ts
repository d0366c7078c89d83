/** Prints which built-in modules are loaded by importing the package, and how many threads and shared libraries are added. */
import { readdirSync, readFileSync } from "node:fs";

const asked = new Set<string>();
const { getBuiltinModule } = process;
// Only what is asked for while it is imported: the package has no other way to get at a built-in module.
process.getBuiltinModule = ((name: string) => {
  asked.add(name);
  return getBuiltinModule.call(process, name);
}) as typeof getBuiltinModule;

const threads = () => readdirSync("/proc/self/task").length;
const libraries = () => new Set(readFileSync("/proc/self/maps", "utf8").match(/\/\S+\.so\S*/g)).size;
const before = { threads: threads(), libraries: libraries() };
await import("../../mod.ts");
console.log(JSON.stringify({
  modules: [...asked].sort(),
  threads: threads() - before.threads,
  libraries: libraries() - before.libraries,
}));
