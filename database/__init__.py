"""SQL databases as the actors use them: connections, prepared statements, groups of writes, migrations."""
