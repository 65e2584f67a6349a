def write_run_report(workdir):
    pass
