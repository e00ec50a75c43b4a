// Before anything is painted: light or dark, if somebody chose. Without a choice the system's holds.
try {
  const chosen = localStorage.getItem("skillbus-theme");
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
} catch { /* no storage: the system's */ }
