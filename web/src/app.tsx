import { useEffect, useState } from "preact/hooks";
import { groups } from "./lib/derived";
import { useBindings } from "./lib/keyboard";
import { format, go, PAGES, route, type Page } from "./lib/route";
import { useCell } from "./lib/store";
import { nextTheme, theme } from "./lib/theme";
import { link, status, streams } from "./node";
import { Alerts } from "./pages/alerts";
import { Cluster } from "./pages/cluster";
import { Hosts } from "./pages/hosts";
import { Keys } from "./pages/keys";
import { Overview } from "./pages/overview";
import { Pipeline } from "./pages/pipeline";
import { Subscribers } from "./pages/subscribers";
import { Surfaces } from "./pages/surfaces";
import { Connection, ConnectionBanner } from "./ui/connection";
import { Help } from "./ui/help";
import { Icon, type IconName } from "./ui/icon";
import { SessionButton, SessionPanel } from "./ui/session";

const TITLES: Record<Page, string> = {
  overview: "Overview",
  pipeline: "Pipeline",
  keys: "Keys",
  hosts: "Hosts",
  alerts: "Alerts",
  subscribers: "Subscribers",
  surfaces: "Surfaces",
  cluster: "Cluster",
};

const VIEWS: Record<Page, () => preact.JSX.Element> = {
  overview: Overview,
  pipeline: Pipeline,
  keys: Keys,
  hosts: Hosts,
  alerts: Alerts,
  subscribers: Subscribers,
  surfaces: Surfaces,
  cluster: Cluster,
};

export function App() {
  const { page, item } = useCell(route);
  const { phase } = useCell(link);
  const chosen = useCell(theme);
  const [help, setHelp] = useState(false);
  const [token, setToken] = useState(false);
  const View = VIEWS[page];
  const cluster = useCell(status)?.cluster;
  const known = useCell(streams);
  const derives = Array.isArray(known) && groups(known).length > 0;
  // A node that stands alone, or derives nothing, has no such page.
  const has: Partial<Record<Page, boolean>> = { cluster: Boolean(cluster), surfaces: derives || page === "surfaces" };
  const pages = PAGES.filter((name) => has[name] ?? true);

  useEffect(() => {
    document.title = `${item ?? TITLES[page]} · Tidegate`;
  }, [page, item]);

  useBindings("Everywhere", [
    ...pages.map((name, i) => ({ key: String(i + 1), what: TITLES[name], run: () => go({ page: name }) })),
    { key: "t", what: "Theme: automatic, light, dark", run: nextTheme },
    { key: "?", what: "This help", run: () => setHelp(true) },
  ]);

  return (
    <div class="app" data-phase={phase}>
      <a
        class="skip"
        href="#main"
        onClick={(event) => (event.preventDefault(), document.getElementById("main")?.focus())}
      >
        Skip to the page
      </a>
      <header class="top">
        <a class="brand" href={format({ page: "overview" })} aria-label="Tidegate, overview">
          <img src="./icon.svg" alt="" width="24" height="24" />
          <span>Tidegate</span>
        </a>
        <nav aria-label="Pages">
          {pages.map((name) => (
            <a key={name} href={format({ page: name })} aria-current={name === page ? "page" : undefined}>
              <Icon name={name as IconName} />
              <span>{TITLES[name]}</span>
              {name === "alerts" && <OpenAlerts />}
              {name === "cluster" && cluster && cluster.warnings > 0 && (
                <i class={`dot ${cluster.bad ? "bad" : "warn"}`} title="There is something to mind" />
              )}
            </a>
          ))}
        </nav>
        <div class="tools">
          <Version />
          <Connection />
          <SessionButton open={token} onClick={() => setToken(!token)} />
          <button
            type="button"
            class="plain"
            onClick={nextTheme}
            title={`Theme: ${chosen} (t)`}
            aria-label={`Theme: ${chosen}. Change it.`}
          >
            <Icon name={chosen} />
          </button>
          <button
            type="button"
            class="plain"
            onClick={() => setHelp(true)}
            title="Keys of the keyboard (?)"
            aria-label="Help"
          >
            <Icon name="help" />
          </button>
        </div>
      </header>
      <ConnectionBanner />
      <SessionPanel open={token} onClose={() => setToken(false)} />
      <main id="main" tabIndex={-1} class={`page ${page}`}>
        <View />
      </main>
      {help && <Help onClose={() => setHelp(false)} />}
    </div>
  );
}

/** How many alerts are open, beside the page's name. */
function OpenAlerts() {
  const open = useCell(status)?.alerts?.open;
  const total = open ? open.high + open.medium + open.low : 0;
  if (!open || !total) return null;
  return (
    <b class={`open-alerts ${open.high ? "bad" : open.medium ? "warn" : ""}`} aria-label={`${total} open`}>
      {total > 99 ? "99+" : total}
    </b>
  );
}

function Version() {
  const version = useCell(status)?.version;
  return version ? <span class="version">{version}</span> : null;
}
