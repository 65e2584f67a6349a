"""What runs beside generated code, by the standard library alone: the launcher, the program's side, the judge's."""
