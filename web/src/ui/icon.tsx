/** Line icons, drawn here so that nothing is fetched. */
const PATHS = {
  overview: "M3 13h4l3-8 4 12 3-6h4",
  pipeline: "M4 5h5v5H4zM15 3h5v5h-5zM15 15h5v5h-5zM9 7.500h3V5.500h3M12 7.500v10h3",
  keys: "M6 4v3M6 15v4M4.500 7h3v8h-3zM12 3v5M12 13v5M10.500 8h3v5h-3zM18 6v3M18 17v3M16.500 9h3v8h-3z",
  hosts: "M4 5h16v5H4zM4 14h16v5H4zM7.500 7.500h.01M7.500 16.500h.01",
  alerts: "M12 4.500 3.500 19.500h17zM12 10.500v4M12 17h.01",
  subscribers: "M5 12a7 7 0 0 1 14 0M8.500 12a3.500 3.500 0 0 1 7 0M12 12v8M12 12h.01",
  surfaces: "M4 4h16v16H4zM4 9.333h16M4 14.667h16M9.333 4v16M14.667 4v16",
  cluster:
    "M9.500 3.500h5v5h-5zM3.500 15.500h5v5h-5zM15.500 15.500h5v5h-5zM10.500 8.500 7 15.500M13.500 8.500 17 15.500M8.500 18h7",
  auto: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  light:
    "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8M12 2.500v2M12 19.500v2M2.500 12h2M19.500 12h2M5.300 5.300l1.400 1.400M17.300 17.300l1.400 1.400M5.300 18.700l1.400-1.400M17.300 6.700l1.400-1.400",
  dark: "M19.500 14.500A8 8 0 0 1 9.500 4.500a8 8 0 1 0 10 10",
  help: "M12 3.500a8.500 8.500 0 1 0 0 17 8.500 8.500 0 0 0 0-17M9.500 9.500a2.500 2.500 0 1 1 3.600 2.300c-.7.400-1.100.9-1.100 1.700M12 16.600h.01",
  back: "M14.500 5.500 8 12l6.500 6.500",
  search: "M10.500 4.500a6 6 0 1 0 0 12 6 6 0 0 0 0-12M15 15l5 5",
  latest: "M5 6l6 6-6 6M12 6l6 6-6 6M20 6v12",
  close: "M6 6l12 12M18 6 6 18",
  plus: "M12 5v14M5 12h14",
  minus: "M5 12h14",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name }: { name: IconName }) {
  return (
    <svg class="icon" viewBox="0 0 24 24" width="18" height="18" aria-hidden="true">
      <path d={PATHS[name]} />
    </svg>
  );
}
