"""Labels made elsewhere: files of texts that another tool or a person wrote about features, as explanations of a name of their own."""
