import { render } from "preact";
import { App } from "./app";
import { startKeyboard } from "./lib/keyboard";
import { followAddress } from "./lib/route";
import { startTheme } from "./lib/theme";
import { start } from "./node";
import "./style.css";

startTheme();
followAddress();
startKeyboard();
start();
render(<App />, document.getElementById("app")!);
