def document(results): return repr(results)
def write_page(results): pass
