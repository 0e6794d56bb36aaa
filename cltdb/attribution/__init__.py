"""Attribution graphs: which features, through which direct effects, make a prompt's logits; checked by intervention."""
