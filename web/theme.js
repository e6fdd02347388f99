/* Sets the chosen theme before the page is drawn, so that it does not flash. Not a module: those run later. */
'use strict';
try {
  const theme = JSON.parse(localStorage.getItem('hearth.settings') || '{}').theme;
  if (theme === 'light' || theme === 'dark') {
    document.documentElement.dataset.theme = theme;
  }
} catch {
  /* no storage, or not ours: the system's theme */
}
