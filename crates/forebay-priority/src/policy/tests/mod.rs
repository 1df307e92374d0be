mod model;
mod props;
