/**
 * A module that calls what another one exports, as text: the entry of a thread or process.
 *
 * The other one is named by its `import.meta.url`, and not by `new URL("./name.ts", import.meta.url)`: a package that is installed may
 * be JavaScript, or come from a server, and then the file of that name isn't there or can't be an entry.
 */
export function bootstrap(url: string, name: string): string {
  return `import { ${name} } from ${JSON.stringify(url)};\n${name}();\n`;
}
