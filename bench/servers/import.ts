/** The package, imported and not used. */
import "../../mod.ts";
